"""The error of a network that cannot take images of a size that it is not built for."""

import contextlib
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from imagenet_repro.errors import UserError
from imagenet_repro.models import registry
from imagenet_repro.models.spec import Origin

# What shapes that do not fit together raise, in JAX and in a network's own code.
ERRORS = (TypeError, ValueError, IndexError, ZeroDivisionError, AssertionError)


@contextlib.contextmanager
def explained(origin: Origin | None, shape: Sequence[int]) -> Iterator[None]:
    """Replace an error of shapes within a network by one that names the network, its size and the options.

    The network is traced at its own size to tell a wrong size from a defect, which keeps its error.

    Args:
      origin: the arguments that the network was built with; None: nothing is replaced.
      shape: of the images, [batch, height, width, channels].

    Raises:
      UserError: the network takes images of its own size and not of this one.
    """
    try:
        yield
    except ERRORS as error:
        if origin is None or len(shape) != 4:
            raise
        size = own_size(origin)
        if (shape[1], shape[2]) == (size, size) or not _takes(origin, size):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(_message(origin, size, shape, reason)) from error


def own_size(origin: Origin) -> int:
    """Return the side of the images that a network is built for, in pixels: its option's, or the published one."""
    spec = registry.spec(origin.name)
    return origin.options.get("image_size", spec.options.get("image_size", spec.preprocessing.image_size))


def _message(origin: Origin, size: int, shape: Sequence[int], reason: str) -> str:
    height, width = shape[1:3]
    option = ""
    if "image_size" in registry.spec(origin.name).options:
        option = f", or build it for them with config.model.options.image_size={height}"
    return (
        f"{origin.name} cannot take images of {height} x {width} pixels, since it is built for {size} x {size}"
        f" ({reason}). Set config.data.image_size={size} and config.data.eval_image_size=0{option}"
    )


def _takes(origin: Origin, size: int) -> bool:
    """Return whether the network can be traced with images of a size."""
    network = registry.abstract(origin.name, origin.num_classes, **origin.options)
    graphdef, state = nnx.split(network.eval())
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    try:
        jax.eval_shape(lambda state, images: nnx.merge(graphdef, state)(images), state, images)
    except (*ERRORS, UserError):
        return False
    return True
