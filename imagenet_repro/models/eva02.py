"""EVA-02: Fang et al., "EVA-02: a visual representation for neon genesis", 2023 (arXiv 2303.11331).

A vision transformer with rotary positions besides learned ones, gated MLPs and, from base on, a norm inside them. The
classifiers were pre-trained by predicting masked features of EVA-CLIP, which is not here. Layers, names and initial
values are timm's.
"""

import functools
import math

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.models.nn.attention import BlockInit
from imagenet_repro.models.nn.initialisers import normal
from imagenet_repro.models.nn.layers import LayerNorm
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.nn.precision import wide_dtype
from imagenet_repro.models.nn.rotary import Rotary
from imagenet_repro.models.rotary_vit import RotaryDesign, RotaryTransformer
from imagenet_repro.models.spec import Preprocessing, Spec
from imagenet_repro.models.vit import layer_of

ROTARY = Rotary(temperature=1e4, reference=16, pairs="neighbours")  # pre-training had 16 x 16 patches


class Eva02(RotaryTransformer):
    """Patches after a class token, encoder blocks, the mean over the patches, a norm, a linear head.

    The learned positions are for images of `image_size` (pixels, square) and interpolated for other sizes; rotary
    positions are scaled to the range of the pre-training. Arguments are those of `VisionTransformer`.
    """

    def __init__(
        self,
        design: RotaryDesign,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        image_size: int = 448,
        depth: int | None = None,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        norm_epsilon: float = 1e-6,
        scan: bool | None = None,
        remat: bool | None = None,
    ):
        super().__init__(
            design,
            rngs=rngs,
            num_classes=num_classes,
            dtype=dtype,
            image_size=image_size,
            depth=depth,
            dropout=dropout,
            drop_path=drop_path,
            norm_epsilon=norm_epsilon,
            scan=scan,
            remat=remat,
        )
        del self.norm  # the norm is after pooling, not before it
        self.fc_norm = LayerNorm(design.width, epsilon=norm_epsilon, dtype=dtype)
        if self.head_ is not None:  # as the authors' fine-tuning begins
            self.head_.weight.set_value(0.001 * self.head_.weight[...])

    @staticmethod
    def _init(number: int) -> BlockInit:
        """Return smaller weights for the layers that end the branches of later blocks, as BEiT has them."""
        last = normal(0.02 / math.sqrt(2 * (number + 1)))
        return BlockInit(proj=last, fc2=last)

    def _normalise(self, tokens: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        return tokens

    def pool(self, features: Float[Array, "b n c"]) -> Float[Array, "b c"]:
        """Return the float32 mean over the patch tokens."""
        return features[:, self.prefix :].mean(1, dtype=wide_dtype(features.dtype))

    def head(self, pooled: Float[Array, "b c"]) -> Float[Array, "b classes"]:
        """Return float32 logits from the norm and the linear layer."""
        return super().head(self.fc_norm(pooled))

    @property
    def feature_layers(self) -> dict[str, tuple[str, ...]]:
        """The normalised mean over the patches; the class token is not read by the classifiers."""
        return {"pooled": ("pooled",)}

    def feature_parts(self, images: Float[Array, "b h w 3"]) -> dict[str, Float[Array, "b n"]]:
        """Return the parts of all `feature_layers` in float32."""
        return Network.feature_parts(self, images)


def _spec(size: str, design: RotaryDesign, image_size: int) -> tuple[str, Spec]:
    name = f"eva02_{size}_patch14"
    return name, Spec(
        reference=f"timm:{name}_{image_size}",
        builder=functools.partial(Eva02, image_size=image_size),
        sizes=(design,),
        preprocessing=Preprocessing(
            image_size=image_size,
            crop_ratio=1.0,
            kernel="bicubic",
            mean=(0.48145466, 0.4578275, 0.40821073),
            std=(0.26862954, 0.26130258, 0.27577711),
            crop="squash" if image_size == 448 else "center",
        ),
        aliases=(f"{name}_224",),
        layers=lambda network: layer_of(len(network.blocks)),
    )


_SMALL = functools.partial(RotaryDesign, patch=14, gated=True, packed=True, rotary=ROTARY)
_LARGE = functools.partial(RotaryDesign, patch=14, gated=True, separate=True, sub_norm=True, rotary=ROTARY)
VARIANTS: dict[str, Spec] = dict(
    [
        _spec("tiny", _SMALL(width=192, depth=12, heads=3, hidden=512), 336),
        _spec("small", _SMALL(width=384, depth=12, heads=6, hidden=1024), 336),
        _spec("base", _LARGE(width=768, depth=12, heads=12, hidden=2048), 448),
        _spec("large", _LARGE(width=1024, depth=24, heads=16, hidden=2730), 448),
    ]
)
