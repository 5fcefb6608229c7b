"""Dense evaluation: a network's pooling and head at every position of the last map of a larger image."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

from imagenet_repro.errors import UserError
from imagenet_repro.models.nn.layers import AvgPool
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.nn.precision import widen


def class_map(network: Network, images: Float[Array, "b h w 3"], image_size: int) -> Float32[Array, "b oh ow classes"]:
    """Return logits at every position of the last map at which a window of the network's own size fits.

    The pooling and the head are applied to every window. This equals the network with its linear layers turned into
    convolutions (Simonyan & Zisserman 2014, sec. 3.2). For images of the network's own size the result is
    the network's own output.

    Args:
      network: in evaluation mode.
      images: normalised, of any height and width whose map holds the window.
      image_size: pixels of the square images that the network was trained for.

    Raises:
      UserError: the network does not end in a convolution's map, or the window does not fit on it.
    """
    blank = jax.ShapeDtypeStruct((1, image_size, image_size, 3), images.dtype)
    window = jax.eval_shape(network.features, blank).shape[1:-1]
    if len(window) != 2:
        raise UserError(f"{type(network).__name__} does not end in the map of a convolution, which this needs")
    features = network.features(images)
    down, across = (size - side + 1 for size, side in zip(features.shape[1:3], window, strict=True))
    if min(down, across) < 1:
        raise UserError(
            f"{type(network).__name__} has a map of {features.shape[1]} x {features.shape[2]} at {images.shape[1]} x"
            f" {images.shape[2]} pixels, and its head reads {window[0]} x {window[1]}: larger images are needed"
        )
    windows = _means(features, window) if network.pools_by_mean else _windows(features, window)
    logits = network.head(network.pool(windows))
    return widen(logits.reshape(len(images), down, across, -1))


def _windows(x: Float[Array, "b h w c"], window: tuple[int, ...]) -> Float[Array, "n wh ww c"]:
    """Return every window of the map, image by image, row by row."""
    down, across = (size - side + 1 for size, side in zip(x.shape[1:3], window, strict=True))
    rows = jnp.stack([lax.slice_in_dim(x, i, i + down, axis=1) for i in range(window[0])], axis=3)
    both = jnp.stack([lax.slice_in_dim(rows, i, i + across, axis=2) for i in range(window[1])], axis=4)
    return both.reshape(-1, *window, x.shape[-1])  # from [b, down, across, wh, ww, c]


def _means(x: Float[Array, "b h w c"], window: tuple[int, ...]) -> Float[Array, "n 1 1 c"]:
    """Return the mean of every window, as a map of one position each."""
    return AvgPool((window[0], window[1]), stride=1)(x).reshape(-1, 1, 1, x.shape[-1])
