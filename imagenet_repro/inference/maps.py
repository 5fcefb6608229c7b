"""The last feature map of a network: what dense evaluation slides over, and what localization looks at.

Every network says where it is: `final_map` stands where the convolutions end and pooling or linear layers begin, and
`token_map` before the last block of a transformer. Both hand the map through as it is, unless a function below has
asked for it while the network is traced.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Float32, Int

from imagenet_repro.errors import UserError
from imagenet_repro.models.nn.layers import AvgPool, global_avg_pool

Hook = Callable[[Array, bool], Array]  # the map and whether the network averages it, to what takes its place

_convolutional: contextvars.ContextVar[Hook | None] = contextvars.ContextVar("convolutional", default=None)
_tokens: contextvars.ContextVar[Hook | None] = contextvars.ContextVar("tokens", default=None)


# --- what networks call ----------------------------------------------------------------------------------------


def final_map(x: Float[Array, "b h w c"], *, averaged: bool = False) -> Float[Array, "n oh ow c"]:
    """The map that the convolutions end with; `averaged` says that nothing but its mean is used."""
    hook = _convolutional.get()
    return x if hook is None else hook(x, averaged)


def final_avg_pool(x: Float[Array, "b h w c"]) -> Float[Array, "n c"]:
    """The mean over the final map, in the type of `x`."""
    return global_avg_pool(final_map(x, averaged=True))


def token_map(x: Float[Array, "b n c"], grid: tuple[int, int]) -> Float[Array, "b n c"]:
    """A transformer's tokens before its last block, of which the last height x width are patches, row by row."""
    hook = _tokens.get()
    if hook is None:
        return x
    prefix = x.shape[1] - grid[0] * grid[1]
    patches = hook(x[:, prefix:].reshape(len(x), *grid, -1), False)
    return jnp.concatenate([x[:, :prefix], patches.reshape(len(x), grid[0] * grid[1], -1)], axis=1)


def tokens_are_wanted() -> bool:
    """Whether `token_map` would do anything, for which a transformer's blocks cannot all be one loop."""
    return _tokens.get() is not None


# --- what is asked of them -------------------------------------------------------------------------------------


def features(model: nnx.Module, images: Float[Array, "b h w 3"]) -> Float[Array, "b mh mw c"]:
    """The final map, or a transformer's patch tokens before its last block, of normalised images.

    Raises UserError where the network has neither.
    """
    seen = []

    def keep(x: Array, _: bool) -> Array:
        seen.append(x)
        return x

    with _asking(_convolutional, keep), _asking(_tokens, keep):
        model(images)
    return _only(seen, model)


def activation(
    model: nnx.Module, images: Float[Array, "b h w 3"], classes: Int[Array, "b k"]
) -> Float32[Array, "b k mh mw"]:
    """Where each of k classes is seen: the final map's channels weighted by the mean gradient of the class's logit.

    Grad-CAM (Selvaraju et al. 2017, eq. 1 and 2) before its rectification. Of a network whose logits are linear in
    the mean of its final map, that is the class activation map of Zhou et al. (2016, eq. 2) over the number of places.
    Not scaled; larger is more of the class. Raises UserError where the network has no final map.
    """
    shape = jax.eval_shape(lambda: features(model, images))

    def chosen_logits(offset: Array) -> tuple[Array, Array]:
        seen = []

        def shift(x: Array, _: bool) -> Array:
            seen.append(x)
            return x + offset

        with _asking(_convolutional, shift), _asking(_tokens, shift):
            logits = model(images)
        return jnp.take_along_axis(logits, classes, axis=1), _only(seen, model)

    chosen, pull_back, final = jax.vjp(chosen_logits, jnp.zeros(shape.shape, shape.dtype), has_aux=True)
    # The logits of an image depend on its own map alone, so one pull-back serves a whole batch.
    one_hot = jnp.eye(classes.shape[1], dtype=chosen.dtype)[:, None, :] * jnp.ones_like(chosen)
    gradients = jax.vmap(lambda cotangent: pull_back(cotangent)[0])(one_hot)
    weights = gradients.astype(jnp.float32).mean((2, 3))
    return jnp.einsum("bhwc,kbc->bkhw", final.astype(jnp.float32), weights)


def class_map(
    model: nnx.Module, images: Float[Array, "b h w 3"], image_size: int
) -> Float32[Array, "b oh ow classes"]:
    """Logits at every position of the final map at which a window of the network's own size fits.

    The network's head is applied to every window, which is what it computes when its linear layers are turned into
    convolutions (Simonyan & Zisserman 2014, sec. 3.2); of images of the network's own size it is the network itself.
    To be called under `jit`, which removes what is computed in vain.

    Args:
      model: in evaluation mode.
      images: normalised, of any height and width whose map holds the window.
      image_size: pixels of the square images that the network was trained for.

    Raises:
      UserError: the network does not end in a convolution's map, or the window does not fit on it.
    """
    blank = jnp.zeros((1, image_size, image_size, 3), images.dtype)
    window = jax.eval_shape(lambda blank: _final(model, blank)[0], blank).shape[1:3]
    final, averaged = _final(model, images)
    down, across = (size - side + 1 for size, side in zip(final.shape[1:3], window, strict=True))
    if min(down, across) < 1:
        raise UserError(
            f"{type(model).__name__} has a map of {final.shape[1]} x {final.shape[2]} at {images.shape[1]} x"
            f" {images.shape[2]} pixels, and its head looks at {window[0]} x {window[1]}: larger images are needed"
        )
    windows = _means(final, window) if averaged else _windows(final, window)
    logits = _head(model, windows, image_size)
    return logits.reshape(len(images), down, across, -1).astype(jnp.float32)


def _final(model: nnx.Module, images: Array) -> tuple[Array, bool]:
    """The map of the convolutions, and whether the network averages it."""
    seen = []

    def keep(x: Array, averaged: bool) -> Array:
        seen.append((x, averaged))
        return x

    with _asking(_convolutional, keep):
        model(images)
    return _only(seen, model)


def _head(model: nnx.Module, windows: Float[Array, "n wh ww c"], image_size: int) -> Float[Array, "n classes"]:
    """What the network says of final maps; of the blank images that it is given nothing is used."""
    blank = jnp.zeros((len(windows), image_size, image_size, 3), windows.dtype)
    with _asking(_convolutional, lambda *_: windows):
        return model(blank)


def _windows(x: Float[Array, "b h w c"], window: tuple[int, ...]) -> Float[Array, "n wh ww c"]:
    """Every window of the map, image by image, row by row."""
    down, across = (size - side + 1 for size, side in zip(x.shape[1:3], window, strict=True))
    rows = jnp.stack([lax.slice_in_dim(x, i, i + down, axis=1) for i in range(window[0])], axis=3)
    both = jnp.stack([lax.slice_in_dim(rows, i, i + across, axis=2) for i in range(window[1])], axis=4)
    return both.reshape(-1, *window, x.shape[-1])  # from [b, down, across, wh, ww, c]


def _means(x: Float[Array, "b h w c"], window: tuple[int, ...]) -> Float[Array, "n 1 1 c"]:
    """The mean of every window, as a map of one place each."""
    return AvgPool((window[0], window[1]), stride=1)(x).reshape(-1, 1, 1, x.shape[-1])


def _only(seen: list, model: nnx.Module) -> Any:
    if len(seen) != 1:
        raise UserError(f"{type(model).__name__} does not end in the map of a convolution, which this needs")
    return seen[0]


@contextlib.contextmanager
def _asking(variable: contextvars.ContextVar, hook: Hook | None) -> Iterator[None]:
    token = variable.set(hook)
    try:
        yield
    finally:
        variable.reset(token)
