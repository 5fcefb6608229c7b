"""The layer of every parameter, from 0 at the input, as layer-wise decay of the learning rate counts them.

ViT and ConvNeXt count as published (`Spec.layers`). Every other network counts as timm does: a residual, inverted or
inception block is one layer, as is every convolution or linear layer outside of blocks, and a normalisation belongs to
the layer before it. Layers are numbered in the order in which the network computes them; heads are the last one.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend import core

from imagenet_repro.models import parameter_names, registry
from imagenet_repro.models.nn.network import Network, tensor_name

# The part of a name that is common to the parameters of one block: stages.0.blocks.1 of ResNetV2, blocks.2.1 of
# EfficientNet, s1.b2 of RegNet, layer1.0 of ResNet, repeat_1.3 of Inception-ResNet, features.4 of VGG, inception_4a of
# BN-Inception, whose branches have no module of their own; otherwise the first word.
_BLOCK = re.compile(
    r"stages\.\d+\.blocks\.\d+|s\d\.b\d+|(?:blocks|features|classifier|layer\d+|repeat(?:_\d)?)(?:\.\d+)+"
    r"|inception_\d[a-z]|[^.]+"
)


def layers(network: Network) -> Callable[[str], int]:
    """Return the function from a parameter's name to its layer; adapters are in the layer of their matrix.

    Args:
      network: of arrays or of shapes, made by `models.create` or `models.abstract`.
    """
    origin = network.known_origin
    published = registry.spec(origin.name).layers
    if published:
        return published(network)
    abstract = registry.abstract(origin.name, origin.num_classes, **origin.options)
    numbers = _number_blocks(abstract)
    return lambda name: numbers[_block(name)]


def _block(name: str) -> str:
    match = _BLOCK.match(name)
    assert match is not None, f"{name} is the name of a parameter"
    return match[0]


def _number_blocks(network: Network) -> dict[str, int]:
    """Return the layer of each block of a network in shapes."""
    shapes = parameter_names.shapes(network)
    used = _first_uses(network)
    heads = {_block(name) for name in parameter_names.head_names(network.known_origin)}
    first: dict[str, int] = {}
    for name, place in used.items():
        first[_block(name)] = min(place, first.get(_block(name), place))
    has_matrix = {_block(name) for name, shape in shapes.items() if len(shape) > 1}
    numbers: dict[str, int] = {}
    layer = -1
    for block in sorted(first, key=lambda block: first[block]):
        if block not in heads:
            layer += block in has_matrix
            numbers[block] = max(layer, 0)
    # An auxiliary head is no part of evaluation; it is new as often as the main one, and trained as fast.
    return numbers | dict.fromkeys({_block(name) for name in shapes} - numbers.keys(), layer + 1)


def _first_uses(network: Network) -> dict[str, int]:
    """Return the place of the first operation that reads each parameter, in the order of computation."""
    network.eval()
    graphdef, params, rest = nnx.split(network, nnx.Param, ...)
    side = registry.spec(network.known_origin.name).preprocessing.image_size
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    entries = nnx.to_flat_state(params)
    names = [tensor_name(path) for path, _ in entries]

    def logits(values: list[jax.Array], rest: nnx.State, images: jax.Array) -> Any:
        own = [(path, variable.replace(value)) for (path, variable), value in zip(entries, values, strict=True)]
        return nnx.merge(graphdef, nnx.from_flat_state(own), rest)(images)

    values = [variable.get_raw_value() for _, variable in entries]
    jaxpr = jax.make_jaxpr(logits)(values, rest, images).jaxpr
    numbers = {variable: number for number, variable in enumerate(jaxpr.invars[: len(names)])}
    uses: dict[str, int] = {}
    for place, equation in enumerate(jaxpr.eqns):
        for variable in equation.invars:
            if isinstance(variable, core.Var) and variable in numbers:
                uses.setdefault(names[numbers[variable]], place)
    return uses
