"""DINOv3: Simeoni et al. 2025 (arXiv 2508.10104), vision transformers pre-trained without labels.

Rotary positions, four registers, LayerScale, and gated MLPs in the variants S+, H+ and 7B. Names are timm's, except
that LayerScale's are those of DINOv2 and of the authors. Initial values are the authors'. Deviations: the frequencies
are float32, while the released weights carry them rounded to bfloat16; coordinates are not shifted, jittered or
rescaled at random in training.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from imagenet_repro.models.nn.rotary import Rotary
from imagenet_repro.models.rotary_vit import RotaryDesign, RotaryTransformer
from imagenet_repro.models.spec import Preprocessing, Spec
from imagenet_repro.models.vit import SIZES, layer_of

ROTARY = Rotary(temperature=100.0, reference=None, pairs="halves")
IMAGES = Preprocessing(image_size=256, crop_ratio=1.0, kernel="bicubic")


class DinoV3(RotaryTransformer):
    """The backbone of DINOv3, for images of any multiple of 16 pixels; positions are computed for their size.

    `qkv_bias` adds biases of queries and values. The files of `transformers` and the authors have them in the smaller
    variants, where they are zero, and timm leaves them out. The other arguments are those of `VisionTransformer`.
    """

    def __init__(
        self,
        design: RotaryDesign,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        depth: int | None = None,
        pool: str = "token",
        dropout: float = 0.0,
        drop_path: float = 0.0,
        norm_epsilon: float = 1e-5,
        qkv_bias: bool = False,
        scan: bool | None = None,
        remat: bool | None = None,
    ):
        super().__init__(
            dataclasses.replace(design, bias=qkv_bias),
            rngs=rngs,
            num_classes=num_classes,
            dtype=dtype,
            positions="none",
            depth=depth,
            pool=pool,
            dropout=dropout,
            drop_path=drop_path,
            norm_epsilon=norm_epsilon,
            scan=scan,
            remat=remat,
        )


def _spec(size: str, width: int, depth: int, heads: int, hidden: int, **fields: Any) -> tuple[str, Spec]:
    name = f"vit_{size}_patch16_dinov3"
    design = RotaryDesign(
        width, depth, heads, hidden, patch=16, layer_scale=1e-5, registers=4, rotary=ROTARY, **fields
    )
    return name, Spec(
        reference=f"timm:{name}",
        builder=DinoV3,
        sizes=(design,),
        num_classes=0,
        preprocessing=IMAGES,
        layers=lambda network: layer_of(len(network.blocks)),
    )


VARIANTS: dict[str, Spec] = dict(
    [
        _spec("small", *SIZES["small"]),
        _spec("small_plus", *SIZES["small"], gated=True),
        _spec("base", *SIZES["base"]),
        _spec("large", *SIZES["large"]),
        _spec("huge_plus", 1280, 32, 20, 5120, gated=True),
        _spec("7b", 4096, 40, 32, 8192, gated=True),
    ]
)
