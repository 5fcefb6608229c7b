"""Optimizers from optax; each update takes the learning rate of its step (training/learning_rate.py)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from imagenet_repro.config import DecayMask, Lamb, Optimizer, RmsProp, Sgd

Parameters = dict[str, jax.Array]


def create(
    spec: Optimizer, clip_norm: float = 0.0, layers: dict[str, int] | None = None
) -> optax.GradientTransformationExtraArgs:
    """Return the transformation of gradients into updates; `update(..., learning_rate=r)` takes the rate of the step.

    Args:
      spec: the section `optimizer`; its `learning_rate` is the peak of the schedule and is not read here.
      clip_norm: largest global norm of the gradient, which is clipped before all else; 0: no clipping.
      layers: the number of each parameter's layer, from 0 at the input (models/depth.py); not read where
        `layer_decay` is 1.

    Sources: SGD with L2 decay, v <- m v + g, w <- w - r v, as in PyTorch; AdamW, Loshchilov & Hutter 2019;
    LAMB, You et al. 2020, algorithm 2, or, without `always_adapt`, as in apex and timm, which trained "ResNet
    strikes back": parameters that do not decay get Adam's update, without a trust ratio; RMSProp as in TensorFlow 1
    (epsilon inside the root, mean square starting at one, the rate inside the momentum's sum), which the Inception and
    EfficientNet papers used; layer-wise decay, Clark et al. 2020 (ELECTRA), as in BEiT and ConvNeXt.
    """
    clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    decay = optax.add_decayed_weights(spec.weight_decay, mask=decay_mask(spec.decay_mask))
    if isinstance(spec, Sgd):
        parts = [decay, optax.trace(spec.momentum, nesterov=spec.nesterov), scale_by_learning_rate()]
    elif isinstance(spec, RmsProp):
        rms = optax.scale_by_rms(spec.decay, eps=spec.eps, initial_scale=1.0, eps_in_sqrt=True)
        parts = [decay, rms, scale_by_learning_rate(), optax.trace(spec.momentum)]
    elif isinstance(spec, Lamb):
        adam = optax.scale_by_adam(spec.b1, spec.b2, spec.eps)
        parts = [adam, decay, _trust_ratio(spec), scale_by_learning_rate()]
    else:
        parts = [optax.scale_by_adam(spec.b1, spec.b2, spec.eps), decay, scale_by_learning_rate()]
    if spec.layer_decay != 1:
        if layers is None:
            raise ValueError("a decay of the rate by layers needs the layer of each parameter")
        parts.append(scale_by_layer(spec.layer_decay, layers))
    return optax.chain(*clip, *parts)


def _trust_ratio(spec: Lamb) -> optax.GradientTransformation:
    adapted = decay_mask(spec.decay_mask) if spec.weight_decay else lambda params: dict.fromkeys(params, False)
    ratio = optax.scale_by_trust_ratio()
    return ratio if spec.always_adapt else optax.masked(ratio, adapted)


def scale_by_layer(decay: float, layers: dict[str, int]) -> optax.GradientTransformation:
    """Multiply the updates of layer l by `decay` ** (L - l), where L is the highest of `layers`, the head's."""
    last = max(layers.values())

    def scale(updates: Any, params: Any) -> Any:
        del params
        return {name: decay ** (last - layers[name]) * value for name, value in updates.items()}

    return optax.stateless(scale)


def scale_by_learning_rate() -> optax.GradientTransformationExtraArgs:
    """Multiply updates by minus the `learning_rate` given to `update`."""

    def update(updates: Any, state: Any, params: Any = None, *, learning_rate: Any, **_: Any) -> Any:
        del params
        return jax.tree.map(lambda u: -learning_rate * u, updates), state

    # optax passes extra arguments by name, which its type of an update function does not allow for.
    return optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(),
        update,  # pyright: ignore[reportArgumentType]
    )


def decay_mask(name: DecayMask) -> Callable[[Parameters], dict[str, bool]]:
    """Return a function of the parameters that returns whether each of them decays.

    Args:
      name: `all`; `no_norm_bias`, parameters of two axes or more; or `kernels`, those of two axes or more whose name
        ends in `weight`, which also leaves out tokens and position embeddings, as timm and DeiT do.
    """

    def decays(path: str, value: jax.Array) -> bool:
        if name == "all":
            return True
        return jnp.ndim(value) > 1 and (name == "no_norm_bias" or path.endswith("weight"))

    return lambda params: {path: decays(path, value) for path, value in params.items()}


def bound_filters(params: Parameters, max_rms: float) -> Parameters:
    """Scale every convolution filter whose root mean square exceeds `max_rms` back to `max_rms`.

    Zeiler & Fergus 2013, sec. 3. A filter is the part of a `weight` [height, width, in, out] that computes one output.
    """

    def bound(name: str, value: jax.Array) -> jax.Array:
        if not (name.endswith("weight") and jnp.ndim(value) == 4):
            return value
        rms = jnp.sqrt(jnp.mean(jnp.square(value), axis=(0, 1, 2), keepdims=True))
        return value * (max_rms / jnp.maximum(rms, max_rms))

    return {name: bound(name, value) for name, value in params.items()}
