"""Class scores over a map: dense evaluation, and Grad-CAM for localization.

The functions here work on a network's parts (`imagenet_repro.models.nn.network`): the features, the pooling and the
head. Networks are in evaluation mode, and images are normalised.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32, Int

from imagenet_repro.errors import UserError
from imagenet_repro.models.nn.layers import AvgPool
from imagenet_repro.models.nn.network import Network


def localization_map(network: Network, images: Float[Array, "b h w 3"]) -> Float[Array, "b mh mw c"]:
    """Return the last map of a convolutional network, or a transformer's patch tokens before its last block."""
    return network.split_at_map(images)[0]


def activation(
    network: Network, images: Float[Array, "b h w 3"], classes: Int[Array, "b k"]
) -> Float32[Array, "b k mh mw"]:
    """Return where each of k classes is seen: the map's channels weighted by the mean gradient of the class's logit.

    This is Grad-CAM (Selvaraju et al. 2017, eq. 1 and 2) before its rectification. For a network whose logits are
    linear in the mean of its last map, it is the class activation map of Zhou et al. (2016, eq. 2) divided by the
    number of positions. Values are not scaled; a larger value means more of the class.
    """
    last_map, logits_of = network.split_at_map(images)
    chosen, pull_back = jax.vjp(lambda x: jnp.take_along_axis(logits_of(x), classes, axis=1), last_map)
    # The logits of an image depend on its own map alone, so one pull-back serves a whole batch.
    one_hot = jnp.eye(classes.shape[1], dtype=chosen.dtype)[:, None, :] * jnp.ones_like(chosen)
    gradients = jax.vmap(lambda cotangent: pull_back(cotangent)[0])(one_hot)
    weights = gradients.astype(jnp.float32).mean((2, 3))
    return jnp.einsum("bhwc,kbc->bkhw", last_map.astype(jnp.float32), weights)


def class_map(network: Network, images: Float[Array, "b h w 3"], image_size: int) -> Float32[Array, "b oh ow classes"]:
    """Return logits at every position of the last map at which a window of the network's own size fits.

    The pooling and the head are applied to every window, which is what a network computes when its linear layers are
    turned into convolutions (Simonyan & Zisserman 2014, sec. 3.2). For images of the network's own size the result is
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
            f" {images.shape[2]} pixels, and its head looks at {window[0]} x {window[1]}: larger images are needed"
        )
    windows = _means(features, window) if network.pools_by_mean else _windows(features, window)
    logits = network.head(network.pool(windows))
    return logits.reshape(len(images), down, across, -1).astype(jnp.float32)


def _windows(x: Float[Array, "b h w c"], window: tuple[int, ...]) -> Float[Array, "n wh ww c"]:
    """Return every window of the map, image by image, row by row."""
    down, across = (size - side + 1 for size, side in zip(x.shape[1:3], window, strict=True))
    rows = jnp.stack([lax.slice_in_dim(x, i, i + down, axis=1) for i in range(window[0])], axis=3)
    both = jnp.stack([lax.slice_in_dim(rows, i, i + across, axis=2) for i in range(window[1])], axis=4)
    return both.reshape(-1, *window, x.shape[-1])  # from [b, down, across, wh, ww, c]


def _means(x: Float[Array, "b h w c"], window: tuple[int, ...]) -> Float[Array, "n 1 1 c"]:
    """Return the mean of every window, as a map of one position each."""
    return AvgPool((window[0], window[1]), stride=1)(x).reshape(-1, 1, 1, x.shape[-1])
