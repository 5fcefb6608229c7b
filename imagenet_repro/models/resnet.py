"""ResNet, v1.5: He et al., "Deep residual learning for image recognition", 2015 (arXiv 1512.03385).

Layers, names and initialisation are torchvision's: in a bottleneck that halves the map the 3x3 convolution has the
stride, not the first 1x1 as in the paper (v1.5), and a shortcut is projected where its shape changes (option B).
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.errors import UserError, nearest
from imagenet_repro.models.initialise import kaiming_fan_out
from imagenet_repro.models.layers import (
    BatchNorm,
    Conv,
    Linear,
    MaxPool,
    Network,
    Sequential,
    global_avg_pool,
    relu,
)
from imagenet_repro.models.spec import Spec

STEMS = ("imagenet", "small")


def conv(in_features: int, out_features: int, kernel: int, **kwargs) -> Conv:
    """A convolution as ResNet has it: padded so that stride 1 keeps the map, without bias."""
    return Conv(in_features, out_features, kernel, padding=kernel // 2, bias=False, init=kaiming_fan_out, **kwargs)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions (fig. 5, left)."""

    expansion = 1

    def __init__(
        self, in_features: int, width: int, *, stride: int, last_scale: float, rngs: nnx.Rngs, dtype: DTypeLike
    ):
        self.conv1 = conv(in_features, width, 3, stride=stride, dtype=dtype, rngs=rngs)
        self.bn1 = BatchNorm(width, dtype=dtype)
        self.conv2 = conv(width, width, 3, dtype=dtype, rngs=rngs)
        self.bn2 = BatchNorm(width, scale_init=last_scale, dtype=dtype)
        self.downsample = shortcut(in_features, width, stride, rngs=rngs, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Residual branch plus shortcut."""
        y = relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions, the last four times as wide (fig. 5, right)."""

    expansion = 4

    def __init__(
        self, in_features: int, width: int, *, stride: int, last_scale: float, rngs: nnx.Rngs, dtype: DTypeLike
    ):
        out_features = width * self.expansion
        self.conv1 = conv(in_features, width, 1, dtype=dtype, rngs=rngs)
        self.bn1 = BatchNorm(width, dtype=dtype)
        self.conv2 = conv(width, width, 3, stride=stride, dtype=dtype, rngs=rngs)
        self.bn2 = BatchNorm(width, dtype=dtype)
        self.conv3 = conv(width, out_features, 1, dtype=dtype, rngs=rngs)
        self.bn3 = BatchNorm(out_features, scale_init=last_scale, dtype=dtype)
        self.downsample = shortcut(in_features, out_features, stride, rngs=rngs, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Residual branch plus shortcut."""
        y = relu(self.bn1(self.conv1(x)))
        y = relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return relu(y + (x if self.downsample is None else self.downsample(x)))


def shortcut(
    in_features: int, out_features: int, stride: int, *, rngs: nnx.Rngs, dtype: DTypeLike
) -> Sequential | None:
    """Option B: a projection where the shape changes, the identity (None) elsewhere."""
    if stride == 1 and in_features == out_features:
        return None
    projection = conv(in_features, out_features, 1, stride=stride, dtype=dtype, rngs=rngs)
    return Sequential([projection, BatchNorm(out_features, dtype=dtype)])


class ResNet(Network):
    """A stem, four stages of `depths` blocks, global average pooling, one linear layer. Any size of image fits.

    `zero_init_last` starts the scale of each block's last normalisation at zero, so that every block begins as the
    identity (Goyal et al. 2017, sec. 5.1); off by default, as in torchvision. `stem="small"` is the usual one for
    images of 32 to 64 pixels: a 3x3 convolution of stride 1 and no pooling in place of 7x7 of stride 2 and a pooling.
    It has 7,680 parameters fewer, maps of four times the side, and so about 16 times the multiply-adds. With
    `num_classes=0` the pooled features are returned.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        zero_init_last: bool = False,
        stem: str = "imagenet",
    ):
        if stem not in STEMS:
            raise UserError(f"ResNet has no stem '{stem}': {nearest(stem, STEMS)}")
        kernel, stride = (3, 1) if stem == "small" else (7, 2)
        self.conv1 = conv(3, 64, kernel, stride=stride, dtype=dtype, rngs=rngs)
        self.bn1 = BatchNorm(64, dtype=dtype)
        self.maxpool = MaxPool(3, stride=2, padding=1) if stem == "imagenet" else None
        features = 64
        for stage, depth in enumerate(depths):
            width = 64 * 2**stage
            blocks = []
            for index in range(depth):
                blocks.append(
                    block(
                        features,
                        width,
                        stride=2 if stage and not index else 1,
                        last_scale=0.0 if zero_init_last else 1.0,
                        rngs=rngs,
                        dtype=dtype,
                    )
                )
                features = width * block.expansion
            setattr(self, f"layer{stage + 1}", Sequential(blocks))
        self.fc = Linear(features, num_classes, dtype=dtype, rngs=rngs) if num_classes else None

    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b classes"]:
        """float32 logits."""
        x = relu(self.bn1(self.conv1(images)))
        if self.maxpool is not None:
            x = self.maxpool(x)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        x = global_avg_pool(x)
        return (x if self.fc is None else self.fc(x)).astype(jnp.float32)


def _spec(depth: int, block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, int, int, int]) -> Spec:
    return Spec(
        year=2015,
        title=f"ResNet-{depth} v1.5",
        paper="He et al. 2015, arXiv 1512.03385",
        reference=f"torchvision:resnet{depth}",
        builder=ResNet,
        sizes=(block, depths),
    )


VARIANTS = {
    "resnet18": _spec(18, BasicBlock, (2, 2, 2, 2)),
    "resnet34": _spec(34, BasicBlock, (3, 4, 6, 3)),
    "resnet50": _spec(50, Bottleneck, (3, 4, 6, 3)),
    "resnet101": _spec(101, Bottleneck, (3, 4, 23, 3)),
    "resnet152": _spec(152, Bottleneck, (3, 8, 36, 3)),
}
