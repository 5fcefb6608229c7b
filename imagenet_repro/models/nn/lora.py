"""Low-rank adapters of linear layers and convolutions: LoRA, Hu et al. 2021 (arXiv 2106.09685), sec. 4.1.

A layer with weights W computes x W + (alpha / rank) (x A) B. B starts at zero, so that the network starts as it was;
A starts uniformly within 1 / sqrt(inputs), as in the authors' code. A convolution's A is a convolution to `rank` maps,
and its B is 1x1, as in `peft`: the product of both is one kernel of the layer's own size.
"""

import functools
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from imagenet_repro.models.nn.layers import Conv, Linear, Padding, pads
from imagenet_repro.models.nn.network import tensor_name

ModuleT = TypeVar("ModuleT", bound=nnx.Module)
NAMES = ("lora_a", "lora_b")  # of an adapter's two parameters
_INIT_A = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class LinearAdapter(nnx.LoRA):
    """The adapter of a linear layer; `scale` multiplies the product."""

    def __init__(self, layer: Linear, rank: int, scale: float, *, rngs: nnx.Rngs):
        weight = layer.weight.get_raw_value()
        super().__init__(
            weight.shape[0],
            rank,
            weight.shape[1],
            dtype=layer.dtype,
            param_dtype=weight.dtype,
            a_initializer=_INIT_A,
            rngs=rngs,
        )
        self.scale = scale

    def __call__(self, x: Float[Array, "... i"], **_: Any) -> Float[Array, "... o"]:
        """Return what the adapter adds to the layer's output, in the layer's dtype."""
        return self.scale * super().__call__(x)

    def delta(self) -> Float[Array, "i o"]:
        """Return what the adapter adds to the layer's weights."""
        return self.scale * jnp.dot(self.lora_a[...], self.lora_b[...], precision=lax.Precision.HIGHEST)


class ConvAdapter(nnx.Module):
    """The adapter of a convolution of one group; `scale` multiplies the product."""

    def __init__(self, layer: Conv, rank: int, scale: float, *, rngs: nnx.Rngs):
        weight = layer.weight.get_raw_value()
        *kernel, out = weight.shape
        self.lora_a = nnx.LoRAParam(_INIT_A(rngs.params(), (*kernel, rank), weight.dtype))
        self.lora_b = nnx.LoRAParam(jnp.zeros((rank, out), weight.dtype))
        self.scale, self.dtype = scale, layer.dtype
        self.stride, self.kernel = layer.stride, layer.kernel
        self.padding: Padding = layer.padding

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b oh ow o"]:
        """Return what the adapter adds to the layer's map, in the layer's dtype."""
        padding = pads(self.padding, (x.shape[1], x.shape[2]), self.kernel, self.stride)
        maps = lax.conv_general_dilated(
            x.astype(self.dtype),
            self.lora_a[...].astype(self.dtype),
            self.stride,
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return self.scale * jnp.dot(maps, self.lora_b[...].astype(self.dtype))

    def delta(self) -> Float[Array, "h w i o"]:
        """Return what the adapter adds to the layer's kernel."""
        return self.scale * jnp.dot(self.lora_a[...], self.lora_b[...], precision=lax.Precision.HIGHEST)


def matrices(model: nnx.Module) -> dict[str, Conv | Linear]:
    """Return the layers that can have an adapter, by name: linear layers, and convolutions of one group."""
    return {
        name: module
        for name, module in modules(model).items()
        if isinstance(module, Linear) or (isinstance(module, Conv) and module.groups == 1)
    }


def modules(model: nnx.Module) -> dict[str, nnx.Module]:
    """Return every module of a network by its name in the published weights."""
    return {tensor_name(path): module for path, module in nnx.iter_modules(model) if path}


def attach(layers: Mapping[str, Conv | Linear], *, rank: int, alpha: float, seed: int) -> None:
    """Give layers adapters, in place.

    Args:
      layers: entries of `matrices`. Where their arrays are shapes (`models.abstract`), the adapters' are too.
      rank: columns of A.
      alpha: the product is multiplied by `alpha` / `rank`.
      seed: of A's values, which also depend on the layer's place among `layers`.
    """
    key = jax.random.fold_in(jax.random.key(seed), rank)
    for number, layer in enumerate(layers.values()):
        create = functools.partial(_create, layer, rank, alpha / rank, jax.random.fold_in(key, number))
        is_abstract = isinstance(layer.weight.get_raw_value(), jax.ShapeDtypeStruct)
        layer.lora = nnx.eval_shape(create) if is_abstract else create()


def _create(layer: Conv | Linear, rank: int, scale: float, key: Array) -> nnx.Module:
    rngs = nnx.Rngs(params=key)
    if isinstance(layer, Linear):
        return LinearAdapter(layer, rank, scale, rngs=rngs)
    return ConvAdapter(layer, rank, scale, rngs=rngs)


def merge(network: ModuleT) -> ModuleT:
    """Add the adapters' products to the weights of their layers, and remove the adapters, in place."""
    for _, module in nnx.iter_modules(network):
        if isinstance(module, Linear | Conv) and module.lora is not None:
            module.weight.set_value(module.weight[...] + module.lora.delta())
            del module.lora
    return network
