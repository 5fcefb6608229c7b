"""BN-Inception and Inception-v3.

BN-Inception: Ioffe & Szegedy, "Batch normalization", 2015 (arXiv 1502.03167), appendix. GoogLeNet with two 3x3
convolutions in place of a 5x5, batch normalisation after every convolution, and no pooling between the modules: the
modules 3c and 4e halve the map themselves. Layers and names are those of the released Caffe model and its port to
PyTorch (`bninception` in Cadene's pretrained-models), whose first convolution is a plain one; the paper's was
separable. Images are pixels from 0 to 255 minus their mean. Ours are RGB, while the released weights expect BGR:
a conversion must reverse the input channels of the first convolution.

Inception-v3: Szegedy et al., "Rethinking the Inception architecture for computer vision", 2015 (arXiv 1512.00567).
Large kernels are factorised, down to 1x7 and 7x1. Layers and names are torchvision's `inception_v3`, which follows
the released weights where these differ from the paper's table 1: 1x1 80, 3x3 192 and a pooling lead to 35x35.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.models.nn.initialisers import (
    Initialiser,
    constant,
    kaiming_fan_out,
    torch_uniform,
    truncated_normal,
)
from imagenet_repro.models.nn.layers import (
    AvgPool,
    BatchNorm,
    Conv,
    Dropout,
    Linear,
    MaxPool,
    Size,
    adaptive_avg_pool,
    check_images,
    global_avg_pool,
    pair,
    relu,
)
from imagenet_repro.models.nn.network import Network, WithAuxiliary
from imagenet_repro.models.nn.precision import widen
from imagenet_repro.models.spec import LEVELS, Preprocessing, Spec

INCEPTION_MEAN = INCEPTION_STD = (0.5, 0.5, 0.5)  # Google's networks read pixels from -1 to 1

# --- shared by v3, v4 and Inception-ResNet-v2 --------------------------------------------------------------------


class Unit(NamedTuple):
    """The layout of a convolution with its normalisation: number of maps, kernel and stride.

    Padding keeps the size of the map, unless the convolution has a stride or is `valid`.
    """

    width: int
    kernel: Size = 1
    stride: int = 1
    valid: bool = False


class ConvNorm(nnx.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(
        self,
        in_features: int,
        unit: Unit,
        *,
        init: Initialiser = torch_uniform,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        height, width = pair(unit.kernel)
        self.conv = Conv(
            in_features,
            unit.width,
            unit.kernel,
            stride=unit.stride,
            padding=0 if unit.valid or unit.stride > 1 else (height // 2, width // 2),
            bias=False,
            init=init,
            dtype=dtype,
            rngs=rngs,
        )
        self.bn = BatchNorm(unit.width, epsilon=1e-3, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Return the map, in the layer's dtype."""
        return relu(self.bn(self.conv(x)))


def halve(x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow c"]:
    """Return the maximum over 3x3 with stride 2 and no padding: a side n becomes (n - 1) // 2."""
    return MaxPool(3, stride=2)(x)


# --- BN-Inception -------------------------------------------------------------------------------------------------


class Widths(NamedTuple):
    """Numbers of maps in the branches of one module of BN-Inception; a module without a 1x1 branch halves the map."""

    one: int
    three: tuple[int, int]  # 1x1, 3x3
    double: tuple[int, int]  # 1x1, both 3x3
    pool: str
    projection: int  # 1x1 after the pooling

    @property
    def stride(self) -> int:
        """The stride: 2 where the module halves the map, else 1."""
        return 1 if self.one else 2


MODULES = {
    "3a": Widths(64, (64, 64), (64, 96), "average", 32),
    "3b": Widths(64, (64, 96), (64, 96), "average", 64),
    "3c": Widths(0, (128, 160), (64, 96), "max", 0),
    "4a": Widths(224, (64, 96), (96, 128), "average", 128),
    "4b": Widths(192, (96, 128), (96, 128), "average", 128),
    "4c": Widths(160, (128, 160), (128, 160), "average", 128),
    "4d": Widths(96, (128, 192), (160, 192), "average", 128),
    "4e": Widths(0, (128, 192), (192, 256), "max", 0),
    "5a": Widths(352, (192, 320), (160, 224), "average", 128),
    "5b": Widths(352, (192, 320), (192, 224), "max", 128),
}


class BNInception(Network):
    """A stem of three convolutions, ten modules, global average pooling, one linear layer.

    `conv_bias` gives the convolutions biases as in the released model (11,295,240 parameters in place of 11,285,224),
    although the normalisation after each cancels them. `dropout` is the share of features dropped before the linear
    layer; the paper has no dropout (sec. 4.2.1). With `num_classes=0` the network returns the 1024 pooled features.
    The paper does not state initial values: ours are He's, and zero for biases. Where an odd map is halved, the
    pooling is padded as the convolutions beside it are; Caffe's pooling would return one position less and not fit.
    """

    def __init__(
        self,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        dropout: float = 0.0,
        conv_bias: bool = True,
    ):
        self.conv_options = {"bias": conv_bias, "dtype": dtype}
        self._add("conv1_7x7_s2", 3, Unit(64, 7, 2), rngs)
        self._add("conv2_3x3_reduce", 64, Unit(64), rngs)
        self._add("conv2_3x3", 64, Unit(192, 3), rngs)
        features = 192
        for name, widths in MODULES.items():
            features = self._add_module(f"inception_{name}", features, widths, rngs)
        self.dropout = Dropout(dropout, rngs=rngs)
        self.last_linear = Linear(features, num_classes, wide=True, dtype=dtype, rngs=rngs) if num_classes else None

    def _add(self, name: str, in_features: int, unit: Unit, rngs: nnx.Rngs) -> None:
        """Add a convolution and its normalisation, side by side in the network as in the released model."""
        convolution = Conv(
            in_features,
            unit.width,
            unit.kernel,
            stride=unit.stride,
            padding=pair(unit.kernel)[0] // 2,
            init=kaiming_fan_out,
            bias_init=constant(0.0),
            rngs=rngs,
            **self.conv_options,
        )
        setattr(self, name, convolution)
        setattr(self, f"{name}_bn", BatchNorm(unit.width, dtype=self.conv_options["dtype"]))

    def _add_module(self, name: str, in_features: int, widths: Widths, rngs: nnx.Rngs) -> int:
        """Add all convolutions of one module; return the number of maps that leave it."""
        (reduced, three), (double_reduced, double) = widths.three, widths.double
        units = {
            "1x1": (in_features, Unit(widths.one)),
            "3x3_reduce": (in_features, Unit(reduced)),
            "3x3": (reduced, Unit(three, 3, widths.stride)),
            "double_3x3_reduce": (in_features, Unit(double_reduced)),
            "double_3x3_1": (double_reduced, Unit(double, 3)),
            "double_3x3_2": (double, Unit(double, 3, widths.stride)),
            "pool_proj": (in_features, Unit(widths.projection)),
        }
        for branch, (features, unit) in units.items():
            if unit.width:
                self._add(f"{name}_{branch}", features, unit, rngs)
        return widths.one + three + double + (widths.projection or in_features)

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow 1024"]:
        """Return the last module's map. Raises UserError below 7 pixels, where the stem leaves nothing to pool."""
        check_images("BN-Inception", images, 7)
        pool = MaxPool(3, stride=2, ceil=True)
        x = pool(self._unit("conv1_7x7_s2", images))
        x = pool(self._unit("conv2_3x3", self._unit("conv2_3x3_reduce", x)))
        for name, widths in MODULES.items():
            x = self._module(f"inception_{name}", x, widths)
        return x

    def head(self, pooled: Float[Array, "b 1024"]) -> Float[Array, "b classes"]:
        """Return float32 logits from dropout and the linear layer."""
        x = self.dropout(pooled)
        return widen(x if self.last_linear is None else self.last_linear(x))

    def _unit(self, name: str, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        return relu(getattr(self, f"{name}_bn")(getattr(self, name)(x)))

    def _module(self, name: str, x: Float[Array, "b h w c"], widths: Widths) -> Float[Array, "b oh ow o"]:
        three = self._unit(f"{name}_3x3", self._unit(f"{name}_3x3_reduce", x))
        double = self._unit(f"{name}_double_3x3_1", self._unit(f"{name}_double_3x3_reduce", x))
        double = self._unit(f"{name}_double_3x3_2", double)
        # On even maps "same" with stride 2 is Caffe's pooling: both put the odd zero at the far end.
        pool = MaxPool(3, stride=widths.stride, padding="same")
        pooled = pool(x) if widths.pool == "max" else AvgPool(3, stride=1, padding=1)(x)
        if not widths.one:
            return jnp.concatenate([three, double, pooled], -1)
        one, projected = self._unit(f"{name}_1x1", x), self._unit(f"{name}_pool_proj", pooled)
        return jnp.concatenate([one, three, double, projected], -1)


# --- Inception-v3 -------------------------------------------------------------------------------------------------

Pool = Callable[[Array], Array]
Step = Unit | tuple[Unit, ...] | Pool  # several units read the same map, and their maps are concatenated
Branches = dict[str, tuple[Step, ...]]


def average(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Return the mean over 3x3. The zeros of the padding count; in the original in TensorFlow they do not."""
    return AvgPool(3, stride=1, padding=1)(x)


class Mixed(nnx.Module):
    """An Inception module: branches side by side, concatenated in the order given.

    A branch's only unit has the branch's name. Where there are several, the first is `branch_1`, and units that read
    the same map are `branch_2a` and `branch_2b`.
    """

    def __init__(self, in_features: int, branches: Branches, **kwargs: Any):
        paths, self.out_features = [], 0
        for name, steps in branches.items():
            path, features = self._add(name, in_features, steps, **kwargs)
            paths.append(path)
            self.out_features += features
        self.paths = tuple(paths)

    def _add(
        self, branch: str, features: int, steps: tuple[Step, ...], **kwargs: Any
    ) -> tuple[tuple[Pool | tuple[str, ...], ...], int]:
        """Build one branch; return its path (poolings and names of units) and the number of maps that leave it."""
        path, is_only_unit = [], sum(not callable(step) for step in steps) == 1
        number = 0
        for step in steps:
            if callable(step):
                path.append(step)
                continue
            number += 1
            name = branch if is_only_unit else f"{branch}_{number}"
            units = {name: step} if isinstance(step, Unit) else dict(zip((f"{name}a", f"{name}b"), step, strict=True))
            for unit_name, unit in units.items():
                setattr(self, unit_name, ConvNorm(features, unit, **kwargs))
            features = sum(unit.width for unit in units.values())
            path.append(tuple(units))
        return tuple(path), features

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Return the maps of all branches."""
        return jnp.concatenate([self._follow(path, x) for path in self.paths], -1)

    def _follow(self, path: tuple[Pool | tuple[str, ...], ...], x: Float[Array, "b h w c"]) -> Array:
        for step in path:
            x = step(x) if callable(step) else jnp.concatenate([getattr(self, name)(x) for name in step], -1)
        return x


def module_a(projection: int) -> Branches:
    """Return the module for 35x35 maps (fig. 5, but with a 5x5 convolution)."""
    return {
        "branch1x1": (Unit(64),),
        "branch5x5": (Unit(48), Unit(64, 5)),
        "branch3x3dbl": (Unit(64), Unit(96, 3), Unit(96, 3)),
        "branch_pool": (average, Unit(projection)),
    }


def module_c(width: int) -> Branches:
    """Return the module for 17x17 maps, with factorised 7x7 convolutions (fig. 6)."""
    across, down = Unit(width, (1, 7)), Unit(width, (7, 1))
    return {
        "branch1x1": (Unit(192),),
        "branch7x7": (Unit(width), across, Unit(192, (7, 1))),
        "branch7x7dbl": (Unit(width), down, across, down, Unit(192, (1, 7))),
        "branch_pool": (average, Unit(192)),
    }


# From 35x35 to 17x17, and from 17x17 to 8x8.
MODULE_B = {
    "branch3x3": (Unit(384, 3, 2),),
    "branch3x3dbl": (Unit(64), Unit(96, 3), Unit(96, 3, 2)),
    "branch_pool": (halve,),
}
MODULE_D = {
    "branch3x3": (Unit(192), Unit(320, 3, 2)),
    "branch7x7x3": (Unit(192), Unit(192, (1, 7)), Unit(192, (7, 1)), Unit(192, 3, 2)),
    "branch_pool": (halve,),
}
FORK = (Unit(384, (1, 3)), Unit(384, (3, 1)))
MODULE_E = {  # on 8x8 maps (fig. 7)
    "branch1x1": (Unit(320),),
    "branch3x3": (Unit(384), FORK),
    "branch3x3dbl": (Unit(448), Unit(384, 3), FORK),
    "branch_pool": (average, Unit(192)),
}
V3_STEM = {
    "Conv2d_1a_3x3": Unit(32, 3, 2),
    "Conv2d_2a_3x3": Unit(32, 3, valid=True),
    "Conv2d_2b_3x3": Unit(64, 3),
    "Conv2d_3b_1x1": Unit(80),
    "Conv2d_4a_3x3": Unit(192, 3, valid=True),
}
V3_STEM_NAMES = tuple(V3_STEM)
V3_MODULES = {
    "Mixed_5b": module_a(32),
    "Mixed_5c": module_a(64),
    "Mixed_5d": module_a(64),
    "Mixed_6a": MODULE_B,
    "Mixed_6b": module_c(128),
    "Mixed_6c": module_c(160),
    "Mixed_6d": module_c(160),
    "Mixed_6e": module_c(192),
    "Mixed_7a": MODULE_D,
    "Mixed_7b": MODULE_E,
    "Mixed_7c": MODULE_E,
}
# The auxiliary head reads the last map of 17x17.
V3_AFTER_AUXILIARY = ("Mixed_7a", "Mixed_7b", "Mixed_7c")
V3_TO_AUXILIARY = tuple(name for name in V3_MODULES if name not in V3_AFTER_AUXILIARY)


class AuxiliaryHead(nnx.Module):
    """The second classifier of Inception-v3, on the last 17x17 map (sec. 4): 5x5 places, a 5x5 convolution, logits.

    A map below 17x17, from an image below 299 pixels, is too small for the 5x5 convolution. The reference fails there;
    here such a map is pooled adaptively to 5x5. From 299 pixels on the pooling is the reference's.
    """

    def __init__(self, in_features: int, num_classes: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kwargs = {"dtype": dtype, "rngs": rngs}
        self.conv0 = ConvNorm(in_features, Unit(128), init=truncated_normal(0.1), **kwargs)
        self.conv1 = ConvNorm(128, Unit(768, 5, valid=True), init=truncated_normal(0.01), **kwargs)
        self.fc = Linear(768, num_classes, wide=True, init=truncated_normal(0.001), **kwargs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b classes"]:
        """Return float32 logits."""
        height, width = ((side - 5) // 3 + 1 for side in x.shape[1:3])
        if min(height, width) >= 5:
            x = AvgPool(5, stride=3)(x)
        else:
            x = adaptive_avg_pool(x, (max(height, 5), max(width, 5)))
        x = global_avg_pool(self.conv1(self.conv0(x)))
        return widen(self.fc(x))


class InceptionV3(Network):
    """A stem of five convolutions, eleven modules, global average pooling, dropout, one linear layer.

    In training mode the network also returns the auxiliary head's logits, for a loss of weight 0.4; `auxiliary=False`
    leaves that head out, which has 3,326,696 parameters. `dropout` is the share of features dropped before the linear
    layer. With `num_classes=0` there is neither head, and the network returns the 2048 pooled features in either mode.
    Initial values are the original's: normal with deviation 0.1 (0.01 and 0.001 in the auxiliary head), cut off at two
    deviations; torchvision cuts off at 2, which has no effect.
    """

    def __init__(
        self,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        dropout: float = 0.5,
        auxiliary: bool = True,
    ):
        init, kwargs = truncated_normal(0.1), {"dtype": dtype, "rngs": rngs}
        features = 3
        for name, unit in V3_STEM.items():
            setattr(self, name, ConvNorm(features, unit, init=init, **kwargs))
            features = unit.width
        self.AuxLogits = AuxiliaryHead(768, num_classes, **kwargs) if auxiliary and num_classes else None
        for name, branches in V3_MODULES.items():
            module = Mixed(features, branches, init=init, **kwargs)
            setattr(self, name, module)
            features = module.out_features
        self.dropout = Dropout(dropout, rngs=rngs)
        self.fc = Linear(features, num_classes, wide=True, init=init, **kwargs) if num_classes else None
        self.deterministic = False

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow 2048"]:
        """Return the last module's map. Raises UserError for images below 75 pixels."""
        return self._apply(V3_AFTER_AUXILIARY, self._to_auxiliary(images))

    def head(self, pooled: Float[Array, "b 2048"]) -> Float[Array, "b classes"]:
        """Return float32 logits from dropout and the linear layer."""
        x = self.dropout(pooled)
        return widen(x if self.fc is None else self.fc(x))

    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b classes"] | WithAuxiliary:
        """Return float32 logits, in training mode with those of the auxiliary head.

        Raises:
          UserError: the images are below 75 pixels.
        """
        if self.AuxLogits is None or self.deterministic:
            return super().__call__(images)
        x = self._to_auxiliary(images)
        auxiliary = self.AuxLogits(x)
        logits = self.head(self.pool(self._apply(V3_AFTER_AUXILIARY, x)))
        return WithAuxiliary(logits, (auxiliary,), 0.4)

    def _to_auxiliary(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow 768"]:
        """Return the map that the auxiliary head reads."""
        check_images("Inception-v3", images, 75)
        x = self._apply(V3_STEM_NAMES[:3], images)
        x = halve(self._apply(V3_STEM_NAMES[3:], halve(x)))
        return self._apply(V3_TO_AUXILIARY, x)

    def _apply(self, modules: tuple[str, ...], x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        for name in modules:
            x = getattr(self, name)(x)
        return x


VARIANTS = {
    "bn_inception": Spec(
        reference="paper",
        builder=BNInception,
        preprocessing=Preprocessing(std=LEVELS),
        aliases=("bninception", "inception_v2"),
    ),
    "inception_v3": Spec(
        reference="torchvision:inception_v3",
        builder=InceptionV3,
        # torchvision's `transform_input` turns its usual normalisation into this one.
        preprocessing=Preprocessing(299, 299 / 342, "bilinear", INCEPTION_MEAN, INCEPTION_STD),
    ),
}
