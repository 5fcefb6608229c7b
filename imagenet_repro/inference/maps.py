"""Maps for localization: the map that a network's logits are computed from, and Grad-CAM on it.

Networks are in evaluation mode, and images are normalised.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from imagenet_repro.models.nn.network import Network


def localization_map(network: Network, images: Float[Array, "b h w 3"]) -> Float[Array, "b mh mw c"]:
    """Return the last map of a convolutional network, or a transformer's patch tokens before its last block."""
    return network.split_at_map(images)[0]


def activation(
    network: Network, images: Float[Array, "b h w 3"], classes: Int[Array, "b k"]
) -> Float32[Array, "b k mh mw"]:
    """Return a map of each of k classes: the map's channels weighted by the mean gradient of the class's logit.

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
