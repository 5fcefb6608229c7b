"""GoogLeNet: Szegedy et al., "Going deeper with convolutions", 2014 (arXiv 1409.4842).

`googlenet` is the paper's (table 1): biases, response normalisation, 5x5 convolutions, pooling that rounds up. Layers
have the names of Caffe's replication as far as Python allows. Where the paper leaves something open we follow the same
replication: the constants of the normalisation, the initial values, and the biases of layers that the paper calls
"linear".

`googlenet_bn` is torchvision's, with its names: batch normalisation in place of biases and response normalisation, 3x3
in place of 5x5 convolutions (which torchvision calls a mistake and keeps), and the fourth pooling over 2x2.

Two auxiliary heads read the modules 4a and 4d. In training mode both networks return `WithAuxiliary`, with the paper's
weight for their losses; in evaluation mode they return logits alone.
"""

import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.models.nn.initialisers import Initialiser, constant, fan_in, normal
from imagenet_repro.models.nn.layers import (
    AvgPool,
    BatchNorm,
    Conv,
    Dropout,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Sequential,
    adaptive_avg_pool,
    check_images,
    flatten,
    relu,
)
from imagenet_repro.models.nn.network import Network, WithAuxiliary
from imagenet_repro.models.nn.precision import widen
from imagenet_repro.models.spec import LEVELS, Preprocessing, Spec

# Table 1: numbers of features of the 1x1, the reduction before the 3x3, the 3x3, the reduction before the 5x5, the
# 5x5, and the projection after the pooling.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
STEM = 192  # features before the first module
AUXILIARY_WEIGHT = 0.3  # of the loss of each auxiliary head (sec. 5)
AUXILIARY_DROPOUT = 0.7  # sec. 5

Layer = Callable[[Array], Array]


def inputs(module: str) -> int:
    """Return the number of features that enter a module of `MODULES`."""
    names = list(MODULES)
    return outputs(names[names.index(module) - 1]) if module != names[0] else STEM


def outputs(module: str) -> int:
    """Return the number of features that leave a module of `MODULES`, over its four branches."""
    one, _, three, _, five, projection = MODULES[module]
    return one + three + five + projection


def apply_modules(
    x: Float[Array, "b h w c"],
    modules: Mapping[str, Layer],
    *,
    before: Mapping[str, Layer],
    heads: Mapping[str, Layer],
) -> tuple[Float[Array, "b oh ow o"], tuple[Float[Array, "b classes"], ...]]:
    """Return the map after all modules, each after the layer `before` it, and the logits of the heads.

    `heads` are auxiliary heads by the module whose map they read.
    """
    logits = []
    for name, module in modules.items():
        x = module(before[name](x) if name in before else x)
        if name in heads:
            logits.append(heads[name](x))
    return x, tuple(logits)


# --- the paper's ------------------------------------------------------------------------------------------------

# Caffe's "xavier": uniform, with the variance 1 / fan-in.
XAVIER = Initialiser("uniform", lambda shape: math.sqrt(3 / fan_in(shape)))


class ConvRelu(Conv):
    """Convolution and ReLU; the bias starts at 0.2, as in Caffe's replication. Stride 1 keeps the size of the map."""

    def __init__(self, in_features: int, out_features: int, kernel: int, **kwargs):
        padding = kernel // 2
        super().__init__(
            in_features, out_features, kernel, padding=padding, init=XAVIER, bias_init=constant(0.2), **kwargs
        )

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b oh ow o"]:
        """Return the rectified map."""
        return relu(super().__call__(x))


class Inception(nnx.Module):
    """Four branches side by side (fig. 2b)."""

    def __init__(self, module: str, **kwargs):
        features = inputs(module)
        one, three_reduce, three, five_reduce, five, projection = MODULES[module]
        self.conv1x1 = ConvRelu(features, one, 1, **kwargs)
        self.conv3x3_reduce = ConvRelu(features, three_reduce, 1, **kwargs)
        self.conv3x3 = ConvRelu(three_reduce, three, 3, **kwargs)
        self.conv5x5_reduce = ConvRelu(features, five_reduce, 1, **kwargs)
        self.conv5x5 = ConvRelu(five_reduce, five, 5, **kwargs)
        self.pool = MaxPool(3, stride=1, padding=1)
        self.pool_proj = ConvRelu(features, projection, 1, **kwargs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w o"]:
        """Return the features of all branches, concatenated."""
        three = self.conv3x3(self.conv3x3_reduce(x))
        five = self.conv5x5(self.conv5x5_reduce(x))
        return jnp.concatenate([self.conv1x1(x), three, five, self.pool_proj(self.pool(x))], -1)


class AuxiliaryHead(nnx.Module):
    """An auxiliary head (sec. 5): 5x5 pooling of stride 3, 1x1 convolution, two linear layers.

    Its first linear layer needs a map of 4x4. The pooling makes one from 14 to 16 positions, that is from images of
    about 224 pixels; other maps are pooled adaptively to 4x4, which is our choice.
    """

    def __init__(
        self,
        features: int,
        num_classes: int,
        *,
        dropout: float = AUXILIARY_DROPOUT,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
    ):
        kwargs = {"init": XAVIER, "dtype": dtype, "rngs": rngs}
        self.pool = AvgPool(5, stride=3)
        self.conv = ConvRelu(features, 128, 1, dtype=dtype, rngs=rngs)
        self.fc = Linear(4 * 4 * 128, 1024, bias_init=constant(0.2), **kwargs)
        self.dropout = Dropout(dropout, rngs=rngs)
        self.classifier = Linear(1024, num_classes, wide=True, bias_init=constant(0.0), **kwargs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b classes"]:
        """Return float32 logits."""
        fits = all(14 <= size <= 16 for size in x.shape[1:3])
        x = self.conv(self.pool(x) if fits else adaptive_avg_pool(x, 4))
        x = self.dropout(relu(self.fc(flatten(x))))
        return widen(self.classifier(x))


class GoogLeNet(Network):
    """The network of 2014, for images from 31 pixels on.

    `dropout` is the share of the pooled features that are dropped, `auxiliary_dropout` that of the features in the
    auxiliary heads. `auxiliary=False` leaves the two auxiliary heads out. With `num_classes=0` there are no heads, and
    the network returns the 1024 pooled features.
    """

    def __init__(
        self,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        dropout: float = 0.4,
        auxiliary: bool = True,
        auxiliary_dropout: float = AUXILIARY_DROPOUT,
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}
        self.conv1 = ConvRelu(3, 64, 7, stride=2, **kwargs)
        self.conv2_3x3_reduce = ConvRelu(64, 64, 1, **kwargs)
        self.conv2_3x3 = ConvRelu(64, STEM, 3, **kwargs)
        for module in MODULES:
            setattr(self, f"inception_{module}", Inception(module, **kwargs))
        with_heads = auxiliary and num_classes > 0
        self.loss1 = (
            AuxiliaryHead(outputs("4a"), num_classes, dropout=auxiliary_dropout, **kwargs) if with_heads else None
        )
        self.loss2 = (
            AuxiliaryHead(outputs("4d"), num_classes, dropout=auxiliary_dropout, **kwargs) if with_heads else None
        )
        self.dropout = Dropout(dropout, rngs=rngs)
        classifier = {"init": XAVIER, "bias_init": constant(0.0), **kwargs}
        self.loss3_classifier = Linear(outputs("5b"), num_classes, wide=True, **classifier) if num_classes else None
        self.max_pool = MaxPool(3, stride=2, ceil=True)
        self.norm = LocalResponseNorm(alpha=1e-4 / 5, k=1.0)  # Caffe divides its alpha by the size of the window
        self.deterministic = False

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow 1024"]:
        """Return the last module's map. Raises UserError for images below 31 pixels."""
        return self._features_and_auxiliary(images, {})[0]

    def head(self, pooled: Float[Array, "b 1024"]) -> Float[Array, "b classes"]:
        """Return float32 logits from dropout and the linear layer."""
        x = self.dropout(pooled)
        return widen(x if self.loss3_classifier is None else self.loss3_classifier(x))

    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b classes"] | WithAuxiliary:
        """Return float32 logits, in training mode with those of the auxiliary heads.

        Raises:
          UserError: the images are below 31 pixels.
        """
        if self.loss1 is None or self.loss2 is None or self.deterministic:
            return super().__call__(images)
        features, auxiliary = self._features_and_auxiliary(images, {"4a": self.loss1, "4d": self.loss2})
        return WithAuxiliary(self.head(self.pool(features)), auxiliary, AUXILIARY_WEIGHT)

    def _features_and_auxiliary(
        self, images: Float[Array, "b h w 3"], heads: Mapping[str, Layer]
    ) -> tuple[Float[Array, "b oh ow 1024"], tuple[Float[Array, "b classes"], ...]]:
        check_images("GoogLeNet", images, 31)
        x = self.norm(self.max_pool(self.conv1(images)))
        x = self.max_pool(self.norm(self.conv2_3x3(self.conv2_3x3_reduce(x))))
        modules = {module: getattr(self, f"inception_{module}") for module in MODULES}
        return apply_modules(x, modules, before={"4a": self.max_pool, "5a": self.max_pool}, heads=heads)


# --- torchvision's ----------------------------------------------------------------------------------------------


class BasicConv(nnx.Module):
    """Convolution without bias, batch normalisation and ReLU; stride 1 keeps the size of the map.

    `kwargs` are those of the convolution.
    """

    def __init__(self, in_features: int, out_features: int, kernel: int, *, dtype: DTypeLike, **kwargs):
        kwargs |= {"padding": kernel // 2, "bias": False, "init": normal(0.01), "dtype": dtype}
        self.conv = Conv(in_features, out_features, kernel, **kwargs)
        self.bn = BatchNorm(out_features, epsilon=1e-3, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b oh ow o"]:
        """Return the rectified map."""
        return relu(self.bn(self.conv(x)))


class InceptionBN(nnx.Module):
    """Four branches side by side; the branch of the 5x5 has a 3x3 kernel."""

    def __init__(self, module: str, **kwargs):
        features = inputs(module)
        one, three_reduce, three, five_reduce, five, projection = MODULES[module]
        self.branch1 = BasicConv(features, one, 1, **kwargs)
        self.branch2 = Sequential(
            [BasicConv(features, three_reduce, 1, **kwargs), BasicConv(three_reduce, three, 3, **kwargs)]
        )
        self.branch3 = Sequential(
            [BasicConv(features, five_reduce, 1, **kwargs), BasicConv(five_reduce, five, 3, **kwargs)]
        )
        self.branch4 = Sequential([MaxPool(3, stride=1, padding=1), BasicConv(features, projection, 1, **kwargs)])

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w o"]:
        """Return the features of all branches, concatenated."""
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return jnp.concatenate([branch(x) for branch in branches], -1)


class AuxiliaryHeadBN(nnx.Module):
    """An auxiliary head: adaptive pooling to 4x4, 1x1 convolution, two linear layers."""

    def __init__(
        self,
        features: int,
        num_classes: int,
        *,
        dropout: float = AUXILIARY_DROPOUT,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}
        self.conv = BasicConv(features, 128, 1, **kwargs)
        self.fc1 = Linear(4 * 4 * 128, 1024, init=normal(0.01), **kwargs)
        self.dropout = Dropout(dropout, rngs=rngs)
        self.fc2 = Linear(1024, num_classes, wide=True, init=normal(0.01), **kwargs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b classes"]:
        """Return float32 logits."""
        x = flatten(self.conv(adaptive_avg_pool(x, 4)))
        return widen(self.fc2(self.dropout(relu(self.fc1(x)))))


class GoogLeNetBN(Network):
    """torchvision's network with batch normalisation, for images from 15 pixels on.

    `dropout` is the share of the pooled features that are dropped, `auxiliary_dropout` that of the features in the
    auxiliary heads. `auxiliary=False` leaves the two auxiliary heads out. With `num_classes=0` there are no heads, and
    the network returns the 1024 pooled features.
    """

    def __init__(
        self,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        dropout: float = 0.2,
        auxiliary: bool = True,
        auxiliary_dropout: float = AUXILIARY_DROPOUT,
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}
        self.conv1 = BasicConv(3, 64, 7, stride=2, **kwargs)
        self.conv2 = BasicConv(64, 64, 1, **kwargs)
        self.conv3 = BasicConv(64, STEM, 3, **kwargs)
        for module in MODULES:
            setattr(self, f"inception{module}", InceptionBN(module, **kwargs))
        with_heads = auxiliary and num_classes > 0
        self.aux1 = (
            AuxiliaryHeadBN(outputs("4a"), num_classes, dropout=auxiliary_dropout, **kwargs) if with_heads else None
        )
        self.aux2 = (
            AuxiliaryHeadBN(outputs("4d"), num_classes, dropout=auxiliary_dropout, **kwargs) if with_heads else None
        )
        self.dropout = Dropout(dropout, rngs=rngs)
        self.fc = Linear(outputs("5b"), num_classes, wide=True, init=normal(0.01), **kwargs) if num_classes else None
        self.max_pool, self.last_pool = MaxPool(3, stride=2, ceil=True), MaxPool(2, stride=2, ceil=True)
        self.deterministic = False

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow 1024"]:
        """Return the last module's map. Raises UserError for images below 15 pixels."""
        return self._features_and_auxiliary(images, {})[0]

    def head(self, pooled: Float[Array, "b 1024"]) -> Float[Array, "b classes"]:
        """Return float32 logits from dropout and the linear layer."""
        x = self.dropout(pooled)
        return widen(x if self.fc is None else self.fc(x))

    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b classes"] | WithAuxiliary:
        """Return float32 logits, in training mode with those of the auxiliary heads.

        Raises:
          UserError: the images are below 15 pixels.
        """
        if self.aux1 is None or self.aux2 is None or self.deterministic:
            return super().__call__(images)
        features, auxiliary = self._features_and_auxiliary(images, {"4a": self.aux1, "4d": self.aux2})
        return WithAuxiliary(self.head(self.pool(features)), auxiliary, AUXILIARY_WEIGHT)

    def _features_and_auxiliary(
        self, images: Float[Array, "b h w 3"], heads: Mapping[str, Layer]
    ) -> tuple[Float[Array, "b oh ow 1024"], tuple[Float[Array, "b classes"], ...]]:
        check_images("GoogLeNet", images, 15)
        x = self.conv2(self.max_pool(self.conv1(images)))
        x = self.max_pool(self.conv3(x))
        modules = {module: getattr(self, f"inception{module}") for module in MODULES}
        return apply_modules(x, modules, before={"4a": self.max_pool, "5a": self.last_pool}, heads=heads)


VARIANTS = {
    "googlenet": Spec(
        reference="paper", builder=GoogLeNet, preprocessing=Preprocessing(std=LEVELS), aliases=("inception_v1",)
    ),
    "googlenet_bn": Spec(
        reference="torchvision:googlenet",
        builder=GoogLeNetBN,
        preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    ),
}
