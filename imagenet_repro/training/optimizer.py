"""Optimizers from optax, with the learning rate handed in at each step and a named mask for weight decay."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from imagenet_repro import config as cfg

Parameters = dict[str, jax.Array]


def create(spec: cfg.Optimizer, clip_norm: float = 0.0) -> optax.GradientTransformationExtraArgs:
    """The transformation of gradients into updates; `update(..., rate=r)` takes the step's learning rate.

    Args:
      spec: a section `optimizer`.
      clip_norm: largest global norm of the gradient, before anything else sees it; 0 for no clipping.

    Sources: SGD with L2 decay, v <- m v + g, w <- w - r v, as PyTorch has it; AdamW, Loshchilov & Hutter 2019;
    LAMB, You et al. 2020, algorithm 2; RMSProp as in TensorFlow 1 (epsilon inside the root, mean square starting at
    one, the rate inside the momentum's sum), which the Inception and EfficientNet papers used.
    """
    clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    decay = optax.add_decayed_weights(spec.weight_decay, mask=decay_mask(spec.decay_mask))
    if isinstance(spec, cfg.Sgd):
        parts = [decay, optax.trace(spec.momentum, nesterov=spec.nesterov), scale_by_rate()]
    elif isinstance(spec, cfg.RmsProp):
        rms = optax.scale_by_rms(spec.decay, eps=spec.eps, initial_scale=1.0, eps_in_sqrt=True)
        parts = [decay, rms, scale_by_rate(), optax.trace(spec.momentum)]
    elif isinstance(spec, cfg.Lamb):
        adam = optax.scale_by_adam(spec.b1, spec.b2, spec.eps)
        parts = [adam, decay, optax.scale_by_trust_ratio(), scale_by_rate()]
    else:
        parts = [optax.scale_by_adam(spec.b1, spec.b2, spec.eps), decay, scale_by_rate()]
    return optax.chain(*clip, *parts)


def scale_by_rate() -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by minus the `rate` given to `update`."""

    def update(updates, state, params=None, *, rate, **_):
        del params
        return jax.tree.map(lambda u: -rate * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def decay_mask(name: cfg.DecayMask) -> Callable[[Parameters], dict[str, bool]]:
    """Which parameters decay: `all`; `no_norm_bias`, those of two axes or more, as timm and DeiT have it; `kernels`,
    those of two axes or more whose name ends in `weight`, which leaves out tokens and position embeddings too.
    """

    def decays(path: str, value: jax.Array) -> bool:
        if name == "all":
            return True
        return jnp.ndim(value) > 1 and (name == "no_norm_bias" or path.endswith("weight"))

    return lambda params: {path: decays(path, value) for path, value in params.items()}
