"""Equal blocks one after the other, compiled once (`scan`) or recomputed in the backward pass (`remat`).

The blocks stay what they are, `blocks.0`, `blocks.1` and so on, each with parameters of its own: only inside the call
the parameters of equal blocks are stacked, and `lax.scan` runs one program over them.
"""

import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from imagenet_repro.models.nn.layers import DropPath, Sequential


class Stack(Sequential):
    """Blocks applied one after the other, each of which keeps the shape and the type of its input in a run of equals.

    Args:
      blocks: the blocks; consecutive ones that differ in nothing but the numbers they hold make a run. A rate of
        stochastic depth that is not zero is such a number.
      scan: whether a run is one program in a loop; else the compiler gets every block.
      remat: whether the backward pass keeps the input of each block alone and computes the rest again.
    """

    def __init__(self, blocks: Iterable[nnx.Module], *, scan: bool = False, remat: bool = False):
        super().__init__(blocks)
        self.scan, self.remat = scan, remat

    def __call__(self, x: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
        """Applies every block; running statistics and random streams move on as they do block by block."""
        if not (self.scan or self.remat):
            return super().__call__(x)
        for _, run in itertools.groupby(map(_part, self), key=lambda part: part.kind):
            parts = list(run)
            apply = self._loop if self.scan and len(parts) > 1 else self._one_by_one
            x = apply(parts, x)
        return x

    def _loop(self, parts: list["_Part"], x: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
        graphdef = parts[0].graphdef

        def body(x: Array, inputs: tuple[nnx.State, Array]) -> tuple[Array, nnx.State]:
            return _apply(graphdef, *inputs, x)

        if self.remat:
            body = jax.checkpoint(body, prevent_cse=False)  # a loop's body has nothing to share with another
        states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[part.state for part in parts])
        rates = jnp.asarray([part.rates for part in parts], jnp.float32)
        x, changed = lax.scan(body, x, (states, rates))
        for number, part in enumerate(parts):
            nnx.update(part.block, jax.tree.map(lambda leaf, number=number: leaf[number], changed))
        return x

    def _one_by_one(self, parts: list["_Part"], x: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
        if not self.remat:
            for part in parts:
                x = part.block(x)
            return x
        for part in parts:
            apply = jax.checkpoint(_apply, static_argnums=0)
            x, changed = apply(part.graphdef, part.state, jnp.asarray(part.rates, jnp.float32), x)
            nnx.update(part.block, changed)
        return x


class _Part(NamedTuple):
    """One block: its structure without the rates of stochastic depth, its arrays, and those rates."""

    block: nnx.Module
    graphdef: nnx.GraphDef
    state: nnx.State
    rates: list[float]

    @property
    def kind(self) -> tuple[Any, ...]:
        """Equal for blocks of which one program can run both."""
        shapes = jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), self.state)
        return self.graphdef, str(jax.tree.leaves(shapes))


def _part(block: nnx.Module) -> _Part:
    copy = nnx.merge(*nnx.split(block))  # of the structure: the arrays are the same
    rates = [path.rate for path in _drop_paths(copy)]
    for path in _drop_paths(copy):
        path.rate = 0.0
    graphdef, state = nnx.split(copy)
    return _Part(block, graphdef, state, rates)


def _apply(graphdef: nnx.GraphDef, state: nnx.State, rates: Array, x: Array) -> tuple[Array, nnx.State]:
    """The block's output, and what the call changed in it: running statistics, counts of random streams."""
    before = {path: variable.get_raw_value() for path, variable in nnx.to_flat_state(state)}
    block = nnx.merge(graphdef, state)
    for path, rate in zip(_drop_paths(block), rates, strict=True):
        vars(path)["rate"] = rate  # past nnx, which takes no array where a number was
    y = block(x)
    for path in _drop_paths(block):
        vars(path)["rate"] = 0.0
    after = nnx.to_flat_state(nnx.state(block))
    return y, nnx.from_flat_state([(path, v) for path, v in after if v.get_raw_value() is not before[path]])


def _drop_paths(block: nnx.Module) -> list[DropPath]:
    return [module for _, module in nnx.iter_modules(block) if isinstance(module, DropPath)]
