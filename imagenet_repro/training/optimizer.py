"""Optimizers from optax; each update takes the learning rate of its step (training/learning_rate.py)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from imagenet_repro.config import AdamW, DecayMask, Lamb, Lion, Muon, Optimizer, RmsProp, ScheduleFreeAdamW, Sgd

Parameters = dict[str, jax.Array]


def create(
    spec: Optimizer, clip_norm: float = 0.0, layers: dict[str, int] | None = None
) -> optax.GradientTransformationExtraArgs:
    """Return the transformation of gradients into updates; `update(..., learning_rate=r)` takes the rate of the step.

    Args:
      spec: the section `optimizer`; its `learning_rate` is the peak of the schedule and is not read here.
      clip_norm: largest global norm of the gradient, which is clipped before all else; 0: no clipping.
      layers: the number of each parameter's layer, from 0 at the input to the head's (models/depth.py); read where
        `needs_layers` says so.

    Sources: SGD with L2 decay, v <- m v + g, w <- w - r v, as in PyTorch; AdamW, Loshchilov & Hutter 2019;
    LAMB, You et al. 2020, algorithm 2, or, without `always_adapt`, as in apex and timm, which trained "ResNet
    strikes back": parameters that do not decay get Adam's update, without a trust ratio; RMSProp as in TensorFlow 1
    (epsilon inside the root, mean square starting at one, the rate inside the momentum's sum), which the Inception and
    EfficientNet papers used; Lion, Chen et al. 2023, algorithm 2; Muon, Jordan et al. 2024; schedule-free AdamW,
    Defazio et al. 2024, algorithm 1; layer-wise decay, Clark et al. 2020 (ELECTRA), as in BEiT and ConvNeXt.
    """
    if needs_layers(spec) and layers is None:
        raise ValueError(f"{spec.name} with these settings needs the layer of each parameter")
    clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    parts = _parts(spec, layers or {})
    if spec.layer_decay != 1:
        assert layers is not None
        parts.append(scale_by_layer(spec.layer_decay, layers))
    transformation = optax.chain(*clip, *parts)
    return _schedule_free(transformation, spec) if isinstance(spec, ScheduleFreeAdamW) else transformation


def needs_layers(spec: Optimizer) -> bool:
    """Return whether `create` has to know the layer of each parameter."""
    return spec.layer_decay != 1 or isinstance(spec, Muon)


def _parts(spec: Any, layers: dict[str, int]) -> list[optax.GradientTransformation]:
    """Return the transformations that make the update, the learning rate and the decay included."""
    decay = optax.add_decayed_weights(spec.weight_decay, mask=decay_mask(spec.decay_mask))
    rate = scale_by_learning_rate()
    kind = type(spec)  # not isinstance: a new optimizer that extends another one must not train as that one
    if kind is Sgd:
        parts = [decay, optax.trace(spec.momentum, nesterov=spec.nesterov), rate]
    elif kind is RmsProp:
        rms = optax.scale_by_rms(spec.decay, eps=spec.eps, initial_scale=1.0, eps_in_sqrt=True)
        parts = [decay, rms, rate, optax.trace(spec.momentum)]
    elif kind is Lamb:
        parts = [optax.scale_by_adam(spec.b1, spec.b2, spec.eps), decay, _trust_ratio(spec), rate]
    elif kind is Lion:
        parts = [optax.scale_by_lion(spec.b1, spec.b2), decay, rate]
    elif kind is Muon:
        parts = [_muon_or_adam(spec, layers), decay, _adam_rate(spec, layers), rate]
    elif kind is ScheduleFreeAdamW:
        # Adam without its momentum, in whose place stands the average.
        rms = optax.scale_by_rms(spec.b2, eps=spec.eps, eps_in_sqrt=False, bias_correction=True)
        parts = [rms, decay, rate]
    elif kind is AdamW:
        parts = [optax.scale_by_adam(spec.b1, spec.b2, spec.eps), decay, rate]
    else:
        raise TypeError(f"{kind.__name__} has no branch in training/optimizer.py, which must say how it updates")
    return parts


def muon_names(params: Parameters, layers: dict[str, int]) -> set[str]:
    """Return the names of the parameters that Muon updates: matrices between the first layer and the head.

    Args:
      params: arrays or shapes; a matrix is a `weight` of two axes or more.
      layers: the number of each parameter's layer; the highest is the head's.
    """
    last = max(layers.values())
    kernels = decay_mask("kernels")(params)
    return {name for name, is_kernel in kernels.items() if is_kernel and 0 < layers[name] < last}


def _muon_or_adam(spec: Muon, layers: dict[str, int]) -> optax.GradientTransformation:
    """Return Muon's orthogonal update for its matrices, scaled by their shapes, and Adam's for the others."""

    def label(params: Any) -> Any:
        chosen = muon_names(params, layers)
        return {name: "muon" if name in chosen else "adam" for name in params}

    def axes(updates: Any) -> Any:
        # The entries that are Adam's hold no array.
        return {
            name: optax.contrib.MuonDimensionNumbers(tuple(range(value.ndim - 1)), value.ndim - 1)
            if isinstance(value, jax.Array)
            else value
            for name, value in updates.items()
        }

    muon = optax.contrib.scale_by_muon(
        ns_steps=spec.steps, beta=spec.momentum, nesterov=spec.nesterov, weight_dimension_numbers=axes
    )

    def scale(updates: Any, params: Any) -> Any:
        # Jordan et al.: the root of outputs over inputs, where there are more outputs. optax keeps its own to itself.
        del params
        return jax.tree.map(lambda x: max(1.0, x.shape[-1] ** 2 / x.size) ** 0.5 * x, updates)

    adam = optax.scale_by_adam(spec.adam_b1, spec.adam_b2, spec.adam_eps)
    return optax.partition({"muon": optax.chain(muon, optax.stateless(scale)), "adam": adam}, label)


def _adam_rate(spec: Muon, layers: dict[str, int]) -> optax.GradientTransformation:
    """Multiply the updates of AdamW's part by the ratio of its rate to Muon's, which multiplies all afterwards."""
    ratio = spec.adam_learning_rate / spec.learning_rate

    def scale(updates: Any, params: Any) -> Any:
        del params
        chosen = muon_names(updates, layers)
        return {name: value if name in chosen else ratio * value for name, value in updates.items()}

    return optax.stateless(scale)


def _schedule_free(
    base: optax.GradientTransformationExtraArgs, spec: ScheduleFreeAdamW
) -> optax.GradientTransformationExtraArgs:
    """Return optax's `schedule_free` around `base`, with the rate of each step in place of a schedule's."""

    def around(learning_rate: Any) -> optax.GradientTransformationExtraArgs:
        return optax.contrib.schedule_free(base, learning_rate, b1=spec.b1, weight_lr_power=spec.weight_power)

    def update(updates: Any, state: Any, params: Any = None, *, learning_rate: Any, **_: Any) -> Any:
        return around(learning_rate).update(updates, state, params, learning_rate=learning_rate)

    # optax passes extra arguments by name, which its type of an update function does not allow for.
    return optax.GradientTransformationExtraArgs(
        around(0.0).init,
        update,  # pyright: ignore[reportArgumentType]
    )


def average(spec: Optimizer, opt_state: Any, params: Parameters) -> Parameters | None:
    """Return the average of the iterates that the optimizer itself keeps, which is to be evaluated; None: it has none.

    Args:
      spec: the section `optimizer`.
      opt_state: its state after a step.
      params: the parameters that are trained, after the step.
    """
    if not isinstance(spec, ScheduleFreeAdamW):
        return None
    return optax.contrib.schedule_free_eval_params(opt_state, params)


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
