"""LeNet-5: LeCun et al., "Gradient-based learning applied to document recognition", 1998, Proc. IEEE 86(11), II-B.

Two networks. `lenet5_1998` is the paper's: learned subsampling, a sparse third layer, a scaled tanh and an output of
radial basis functions around fixed codes. `lenet5` is the network that most later code calls LeNet-5: dense
convolutions, ReLU, maximum pooling, a softmax. Layers have the paper's names.

The paper's images are grey and 32 pixels square. Colour images are converted to grey first. On larger images C5 has
more than one position, and F6 reads the mean over them. This is our choice; the paper keeps the map (sec. VII).
"""

import functools
import hashlib
from typing import cast

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.errors import UserError
from imagenet_repro.models.nn.initialisers import Initialiser, parameter
from imagenet_repro.models.nn.layers import AvgPool, Conv, Linear, MaxPool, check_images, relu, tanh
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.nn.precision import widen
from imagenet_repro.models.spec import Preprocessing, Spec

SMALLEST = 32  # pixels that leave one position to C5
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601

# Table I, the maps of S2 that the maps of C3 read: six read three maps, nine read four, and the last reads all six.
THREE = ((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5))
FOUR = (
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
)

CODE = 84  # units of F6, pixels of a bitmap
# Fig. 3: the bitmaps of the ten digits, twelve rows of seven pixels, each row's pixels as the bits of a number. Others
# transcribed them from the figure, so a pixel may differ from the print.
DIGITS = (
    "3e 00 1c 36 63 63 63 63 36 1c 00 00",
    "0c 1c 3c 0c 0c 0c 0c 0c 0c 3f 00 00",
    "3e 00 3e 63 43 06 1c 30 60 7f 00 00",
    "7f 03 06 0c 1e 03 03 03 63 3e 00 00",
    "3e 00 00 33 33 73 63 63 67 3f 03 03",
    "3e 00 7f 60 60 3c 1e 03 63 3e 00 00",
    "1e 30 60 60 7e 73 63 63 73 3e 00 00",
    "7f 03 03 06 0c 0c 18 18 18 18 00 00",
    "3e 63 63 63 3e 63 63 63 63 3e 00 00",
    "3e 67 63 63 67 3f 03 03 06 3c 00 00",
)


def squash(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return 1.7159 tanh(2x / 3), which maps 1 to 1 and -1 to -1 (appendix A)."""
    return 1.7159 * tanh(x * (2 / 3))


def grey(images: Float[Array, "b h w c"]) -> Float[Array, "b h w 1"]:
    """Return the luma (ITU-R BT.601) of three channels, or a single channel as it is.

    Raises:
      UserError: the images have another number of channels.
    """
    if images.shape[-1] == 1:
        return images
    if images.shape[-1] != 3:
        raise UserError(f"LeNet-5 takes images of 1 or 3 channels; these have {images.shape[-1]}")
    return cast(Array, sum(weight * images[..., i : i + 1] for i, weight in enumerate(LUMA)))


@functools.cache
def codes(num_classes: int) -> Float[np.ndarray, "classes 84"]:
    """Return the fixed centre of each class's output unit, float32 of +1 and -1.

    With ten classes they are the paper's bitmaps of the digits, ink +1. The paper has codes for characters only. With
    any other number of classes ours are the first 84 bits of a hash (SHAKE-128) of the class index, which look random
    and are the same on every machine.
    """
    if num_classes == len(DIGITS):
        rows = [[int(row, 16) >> bit & 1 for row in digit.split() for bit in range(6, -1, -1)] for digit in DIGITS]
        bits = np.array(rows)
    else:
        hashes = [hashlib.shake_128(b"class %d" % index).digest(11) for index in range(num_classes)]
        bits = np.array([np.unpackbits(np.frombuffer(digest, np.uint8))[:CODE] for digest in hashes])
    return (2.0 * bits - 1).astype(np.float32)


def _uniform(inputs: int) -> Initialiser:
    """Return the paper's initialiser of weights, uniform within 2.4 / fan-in (appendix A).

    We use it for biases too, for which the paper gives none.
    """
    return Initialiser("uniform", lambda _: 2.4 / inputs)


def conv(in_features: int, out_features: int, *, groups: int = 1, **kwargs) -> Conv:
    """Return a 5x5 convolution with the paper's initial values."""
    init = _uniform(25 * in_features // groups)
    return Conv(in_features, out_features, 5, groups=groups, init=init, bias_init=init, **kwargs)


class Subsampling(nnx.Module):
    """S2 and S4: the sum of four neighbours times the map's gain plus its bias, through the scaled tanh."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.gain = parameter(rngs, _uniform(4), (features,))
        self.bias = parameter(rngs, _uniform(4), (features,))
        self.mean = AvgPool(2, stride=2)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow c"]:
        """Return a map of half the size, rounded down, in the type of `x`."""
        gain, bias = (p[...].astype(x.dtype) for p in (self.gain, self.bias))
        return squash(4 * self.mean(x) * gain + bias)


class SparseConv(nnx.Module):
    """C3: sixteen maps, each a 5x5 convolution of some maps of S2 (table I), written as grouped convolutions."""

    def __init__(self, *, rngs: nnx.Rngs, dtype: DTypeLike):
        kwargs = {"dtype": dtype, "rngs": rngs}
        self.three = conv(18, 6, groups=6, **kwargs)
        self.four = conv(36, 9, groups=9, **kwargs)
        self.six = conv(6, 1, **kwargs)

    def __call__(self, x: Float[Array, "b h w 6"]) -> Float[Array, "b oh ow 16"]:
        """Return the sixteen maps in the paper's order, in the layer's dtype."""
        three, four = (x[..., np.array(table).ravel()] for table in (THREE, FOUR))
        return jnp.concatenate([self.three(three), self.four(four), self.six(x)], -1)


class LeNet1998(Network):
    """The paper's network, with 60,000 trained parameters for any number of classes.

    The logits are minus the squared distances of F6 to the fixed code of each class (`codes`), so that the largest
    logit is the paper's decision, and cross-entropy is its criterion (eq. 9) without the constant of the class
    "rubbish". Images have 32 pixels or more and one channel or three. With `num_classes=0` the network returns the 84
    units of F6.
    """

    def __init__(self, *, rngs: nnx.Rngs, num_classes: int = 1000, dtype: DTypeLike = jnp.float32):
        kwargs = {"dtype": dtype, "rngs": rngs}
        self.c1 = conv(1, 6, **kwargs)
        self.s2 = Subsampling(6, rngs=rngs)
        self.c3 = SparseConv(**kwargs)
        self.s4 = Subsampling(16, rngs=rngs)
        self.c5 = conv(16, 120, **kwargs)
        self.f6 = Linear(120, CODE, init=_uniform(120), bias_init=_uniform(120), **kwargs)
        self.num_classes = num_classes

    def features(self, images: Float[Array, "b h w c"]) -> Float[Array, "b oh ow 120"]:
        """Return the map of C5. Raises UserError for images that are too small or have two channels."""
        check_images("LeNet-5", images, SMALLEST, channels=None)
        x = self.s2(squash(self.c1(grey(images))))
        x = self.s4(squash(self.c3(x)))
        return squash(self.c5(x))

    def head(self, pooled: Float[Array, "b 120"]) -> Float[Array, "b classes"]:
        """Return float32 logits, none above 0."""
        x = widen(squash(self.f6(pooled)))
        return minus_distances(x, codes(self.num_classes)) if self.num_classes else x


def minus_distances(x: Float[Array, "b n"], centres: Float[np.ndarray, "classes n"]) -> Float[Array, "b classes"]:
    """Return minus the squared Euclidean distance of each vector to each centre (eq. 7)."""
    return -jnp.square(x[:, None] - centres).sum(-1)


class LeNet5(Network):
    """The modern LeNet-5: dense C3, ReLU, maximum pooling and a linear output; 61,706 parameters for ten classes.

    Initial values are PyTorch's. Images have 32 pixels or more and one channel or three. With `num_classes=0` the
    network returns the 84 units of F6.
    """

    def __init__(self, *, rngs: nnx.Rngs, num_classes: int = 1000, dtype: DTypeLike = jnp.float32):
        kwargs = {"dtype": dtype, "rngs": rngs}
        self.c1 = Conv(1, 6, 5, **kwargs)
        self.c3 = Conv(6, 16, 5, **kwargs)
        self.c5 = Conv(16, 120, 5, **kwargs)
        self.f6 = Linear(120, CODE, **kwargs)
        self.output = Linear(CODE, num_classes, wide=True, **kwargs) if num_classes else None
        self.max_pool = MaxPool(2, stride=2)

    def features(self, images: Float[Array, "b h w c"]) -> Float[Array, "b oh ow 120"]:
        """Return the map of C5. Raises UserError for images that are too small or have two channels."""
        check_images("LeNet-5", images, SMALLEST, channels=None)
        x = self.max_pool(relu(self.c1(grey(images))))
        x = self.max_pool(relu(self.c3(x)))
        return relu(self.c5(x))

    def head(self, pooled: Float[Array, "b 120"]) -> Float[Array, "b classes"]:
        """Return float32 logits."""
        x = relu(self.f6(pooled))
        return widen(x if self.output is None else self.output(x))


# Sec. II-B: the background (0) becomes -0.1 and ink (1) 1.175, which is about mean 0 and variance 1 on digits.
_MEAN, _STD = 0.1 / 1.275, 1 / 1.275
_PREPROCESSING = Preprocessing(32, 1.0, mean=(_MEAN, _MEAN, _MEAN), std=(_STD, _STD, _STD))

VARIANTS = {
    "lenet5_1998": Spec(reference="paper", builder=LeNet1998, num_classes=10, preprocessing=_PREPROCESSING),
    "lenet5": Spec(
        reference="paper", builder=LeNet5, num_classes=10, preprocessing=_PREPROCESSING, aliases=("lenet",)
    ),
}
