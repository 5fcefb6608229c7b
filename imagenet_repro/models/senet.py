"""SENet: Hu et al., "Squeeze-and-excitation networks", 2017 (arXiv 1709.01507).

Layers, names and initialisation are those of timm's `legacy_` networks, which have the authors' released weights: both
layers of an SE module have biases, and the pooling of the stem rounds up without padding, as Caffe's does. SE-ResNets
have the stride in the first 1x1 convolution, SE-ResNeXts in the 3x3.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.models.nn.initialisers import kaiming_fan_out
from imagenet_repro.models.nn.layers import (
    BatchNorm,
    Conv,
    Dropout,
    Linear,
    MaxPool,
    check_images,
    global_avg_pool,
    relu,
)
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.nn.precision import widen
from imagenet_repro.models.resnet import Bottleneck, conv, make_stages
from imagenet_repro.models.spec import Spec


class SEModule(nnx.Module):
    """Squeeze, a mean over the map, and excitation, a factor in (0, 1) for each channel from two layers (sec. 3).

    There are `reduced` channels between the two layers, by default a sixteenth of the features.
    """

    def __init__(self, features: int, reduced: int | None = None, *, rngs: nnx.Rngs, dtype: DTypeLike):
        kwargs = {"init": kaiming_fan_out, "dtype": dtype, "rngs": rngs}
        reduced = features // 16 if reduced is None else reduced
        self.fc1 = Conv(features, reduced, 1, **kwargs)
        self.fc2 = Conv(reduced, features, 1, **kwargs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Return the map with each channel times its factor."""
        squeezed = global_avg_pool(x)[:, None, None]
        return x * nnx.sigmoid(self.fc2(relu(self.fc1(squeezed))))


class SEBottleneck(Bottleneck):
    """ResNet's bottleneck with an SE module at the end of the residual branch (fig. 3)."""

    def __init__(self, in_features: int, width: int, *, rngs: nnx.Rngs, dtype: DTypeLike, **kwargs):
        super().__init__(in_features, width, rngs=rngs, dtype=dtype, **kwargs)
        self.se_module = SEModule(self.out_features, rngs=rngs, dtype=dtype)

    def branch(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Return the bottleneck's branch, weighted by the SE module."""
        return self.se_module(super().branch(x))


class SENet154Bottleneck(SEBottleneck):
    """The block of SENet-154: half the channels in the first 1x1, 3x3 projections that halve the map (appendix)."""

    narrowing, halving_kernel = 2, 3


class Stem(nnx.Module):
    """One 7x7 convolution of stride 2 to `features` channels, or three 3x3 convolutions if `deep` (SENet-154)."""

    def __init__(self, features: int, *, deep: bool, rngs: nnx.Rngs, dtype: DTypeLike):
        layers = ((3, 64, 3, 2), (64, 64, 3, 1), (64, features, 3, 1)) if deep else ((3, features, 7, 2),)
        self.depth = len(layers)
        for index, (before, after, kernel, stride) in enumerate(layers, start=1):
            setattr(self, f"conv{index}", conv(before, after, kernel, stride=stride, dtype=dtype, rngs=rngs))
            setattr(self, f"bn{index}", BatchNorm(after, dtype=dtype))

    def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow o"]:
        """Return a map of half the side."""
        for index in range(1, self.depth + 1):
            x = relu(getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(x)))
        return x


class SENet(Network):
    """A stem, four stages of `depths` blocks, global average pooling, one linear layer, for images from 3 pixels on.

    `deep_stem` is SENet-154's. `dropout` is the share of features dropped before the linear layer: 0.2 in SENet-154, 0
    in the others. `zero_init_last` starts the scale of each block's last normalisation at zero, so that every block
    begins as the identity; `drop_path` is the last block's rate of stochastic depth (Huang et al. 2016). The authors
    use neither. `scan` and `remat` are those of `Stack`. With `num_classes=0` the network returns the pooled features.
    """

    def __init__(
        self,
        block: partial[SEBottleneck],
        depths: tuple[int, int, int, int],
        deep_stem: bool = False,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        zero_init_last: bool = False,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        scan: bool = False,
        remat: bool | None = None,
    ):
        stem_features = 128 if deep_stem else 64
        self.layer0 = Stem(stem_features, deep=deep_stem, rngs=rngs, dtype=dtype)
        self.pool0 = MaxPool(3, stride=2, ceil=True)
        self.layer1, self.layer2, self.layer3, self.layer4 = make_stages(
            block,
            stem_features,
            widths=(64, 128, 256, 512),
            depths=depths,
            drop_path=drop_path,
            shortcut="B",
            last_scale=0.0 if zero_init_last else 1.0,
            scan=scan,
            remat=remat,
            rngs=rngs,
            dtype=dtype,
        )
        self.dropout = Dropout(dropout, rngs=rngs) if dropout else None
        features = self.layer4[-1].out_features
        self.last_linear = Linear(features, num_classes, wide=True, dtype=dtype, rngs=rngs) if num_classes else None

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow c"]:
        """Return the last stage's map. Raises UserError for images that are too small for the pooling of the stem."""
        check_images("SENet", images, 3)
        x = self.pool0(self.layer0(images))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return x

    def head(self, pooled: Float[Array, "b c"]) -> Float[Array, "b classes"]:
        """Return float32 logits from dropout and the linear layer."""
        x = pooled if self.dropout is None else self.dropout(pooled)
        return widen(x if self.last_linear is None else self.last_linear(x))


SE_RESNET = partial(SEBottleneck, v1=True)
SE_RESNEXT = partial(SEBottleneck, groups=32, base_width=4)
SENET = partial(SENet154Bottleneck, groups=64, base_width=4)


def _spec(name: str, *sizes: Any, builder: Callable[..., SENet] = SENet) -> tuple[str, Spec]:
    legacy = f"legacy_{name}"
    return name, Spec(reference=f"timm:{legacy}", builder=builder, sizes=sizes, aliases=(legacy,))


VARIANTS = dict(
    [
        _spec("seresnet50", SE_RESNET, (3, 4, 6, 3)),
        _spec("seresnet101", SE_RESNET, (3, 4, 23, 3)),
        _spec("seresnet152", SE_RESNET, (3, 8, 36, 3)),
        _spec("seresnext50_32x4d", SE_RESNEXT, (3, 4, 6, 3)),
        _spec("seresnext101_32x4d", SE_RESNEXT, (3, 4, 23, 3)),
        _spec("senet154", SENET, (3, 8, 36, 3), True, builder=partial(SENet, dropout=0.2)),
    ]
)
