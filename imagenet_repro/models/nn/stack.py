"""Stacks of equal blocks, compiled once (`scan`) or recomputed in the backward pass (`remat`).

Outside the call the blocks are separate modules, `blocks.0`, `blocks.1` and so on, each with its own parameters. Only
the call stacks the parameters of equal blocks, and `lax.scan` runs one program over them. Parameters that are split
over devices (`Shard`) are gathered block by block, in the forward pass and again in the backward pass.
"""

import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from imagenet_repro.models.nn.layers import DropPath, Sequential
from imagenet_repro.models.nn.shards import complete, is_shard

# What the backward pass computes again, from least to most: nothing; all but the products of a layer's input and its
# weights (the norms, activations and attention between them); everything but the input of each block.
POLICIES = ("none", "products", "blocks")

Shared = dict[str, Array]  # what every block of a stack receives, by the name of its argument


class Stack(Sequential):
    """Blocks that are applied one after the other.

    A block is called with a map or tokens and, in a loop or with rematerialisation, also with its rate of stochastic
    depth as a traced array: `block(x, drop_path)`. Keyword arguments of a call are arrays that every block receives
    too, such as positions.

    Args:
      blocks: the blocks. Consecutive blocks that differ only in their arrays and in a rate of stochastic depth above
        zero make a run; in a run, a block returns the shape and type of its input.
      scan: whether each run is one program in a loop; otherwise every block is compiled.
      remat: whether the backward pass stores only the input of each block and computes its inside again; None: not
        here, but a run on an accelerator may choose one of `POLICIES` (`remat_policy`) where memory does not suffice.

    Attributes:
      chooses_remat: whether `remat` was None.
      remat_policy: one of `POLICIES`.
      frozen: for each block, the names of its parameters that are not trained; empty: all of every block are.
    """

    frozen: tuple[frozenset[str], ...] = ()

    def __init__(self, blocks: Iterable[nnx.Module], *, scan: bool = False, remat: bool | None = None):
        super().__init__(blocks)
        self.scan, self.chooses_remat = scan, remat is None
        self.remat_policy = "blocks" if remat else "none"

    def __call__(self, x: Float[Array, "b ..."], **shared: Array) -> Float[Array, "b ..."]:
        """Apply every block; running statistics and random streams move on as they do block by block."""
        if self.scan or self._recomputes:
            return self._run(list(self), x, shared)
        for block in self:
            x = block(x, **shared)
        return x

    def outputs(self, x: Float[Array, "b ..."], count: int, **shared: Array) -> list[Float[Array, "b ..."]]:
        """Return the outputs of the last `count` blocks, in their order; the blocks before them may run in a loop."""
        blocks = list(self)
        first = len(blocks) - count
        x = self._run(blocks[:first], x, shared)
        results = []
        for block in blocks[first:]:
            x = _completed(block)(x, **shared)
            results.append(x)
        return results

    def _run(self, blocks: list[nnx.Module], x: Float[Array, "b ..."], shared: Shared) -> Float[Array, "b ..."]:
        """Apply the first blocks one after the other, equal ones in a loop if `scan` is set."""
        frozen = self.frozen or (frozenset(),) * len(self)
        parts = zip(map(_split, blocks), frozen[: len(blocks)], strict=True)
        for _, run in itertools.groupby(parts, key=lambda part: (part[0].kind, part[1])):
            group = [block for block, _ in run]
            apply = self._loop if self.scan and len(group) > 1 else self._one_by_one
            x = apply(group, x, shared)
        return x

    def all_but_last(self, x: Float[Array, "b ..."], **shared: Array) -> Float[Array, "b ..."]:
        """Apply every block but the last, one by one, regardless of `scan` and `remat`."""
        for block in list(self)[:-1]:
            x = _completed(block)(x, **shared)
        return x

    def last(self, x: Float[Array, "b ..."], **shared: Array) -> Float[Array, "b ..."]:
        """Apply the last block alone."""
        return _completed(self[-1])(x, **shared)

    @property
    def _recomputes(self) -> bool:
        """Whether the backward pass computes something again: gathered parameters are never stored."""
        return self.remat_policy != "none" or _has_shards(self)

    def _checkpointed(self, function: Callable, **options: Any) -> Callable:
        if not self._recomputes:
            return function
        policies = {"none": _is_not_gathered, "products": _is_product, "blocks": None}
        return jax.checkpoint(function, policy=policies[self.remat_policy], **options)

    def _loop(self, blocks: list["_Split"], x: Float[Array, "b ..."], shared: Shared) -> Float[Array, "b ..."]:
        graphdef = blocks[0].graphdef

        def body(x: Array, inputs: tuple[nnx.State, Array]) -> tuple[Array, nnx.State]:
            return _apply(graphdef, *inputs, x, shared)

        body = self._checkpointed(body, prevent_cse=False)  # a loop's body has nothing to share with another
        states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[block.state for block in blocks])
        rates = jnp.asarray([block.drop_path for block in blocks], jnp.float32)
        x, changed = lax.scan(body, x, (states, rates))
        for index, block in enumerate(blocks):
            nnx.update(block.module, jax.tree.map(lambda leaf, index=index: leaf[index], changed))
        return x

    def _one_by_one(self, blocks: list["_Split"], x: Float[Array, "b ..."], shared: Shared) -> Float[Array, "b ..."]:
        if not self._recomputes:
            for block in blocks:
                x = block.module(x, **shared)
            return x
        for block in blocks:
            apply = self._checkpointed(_apply, static_argnums=0)
            x, changed = apply(block.graphdef, block.state, jnp.asarray(block.drop_path, jnp.float32), x, shared)
            nnx.update(block.module, changed)
        return x


def _is_product(primitive: Any, *arguments: Any, **parameters: Any) -> bool:
    """Return whether a result is a convolution, or a product with weights; attention's products are not."""
    is_convolution = primitive is lax.conv_general_dilated_p
    return is_convolution or jax.checkpoint_policies.dots_with_no_batch_dims_saveable(
        primitive, *arguments, **parameters
    )


def _is_not_gathered(primitive: Any, *arguments: Any, **parameters: Any) -> bool:
    """Return whether a result is anything but a parameter that `Shard` gathers, with a gradient of its own."""
    del arguments
    equations = getattr(parameters.get("call_jaxpr"), "eqns", ()) if primitive.name == "custom_vjp_call" else ()
    return not any(equation.primitive is lax.all_gather_p for equation in equations)


def _has_shards(module: nnx.Module) -> bool:
    return any(is_shard(variable.get_raw_value()) for _, variable in nnx.to_flat_state(nnx.state(module, nnx.Param)))


def _completed(block: nnx.Module) -> nnx.Module:
    """Return a block whose parameters are all complete: itself, where no parameter is a shard."""
    if not _has_shards(block):
        return block
    graphdef, state = nnx.split(block)
    return nnx.merge(graphdef, complete(state))


class _Split(NamedTuple):
    """One block in parts: its structure without the rate of stochastic depth, its arrays, and that rate."""

    module: nnx.Module
    graphdef: nnx.GraphDef
    state: nnx.State
    drop_path: float

    @property
    def kind(self) -> tuple[Any, ...]:
        """The structure and the shapes and types of arrays; one program can run all blocks of a kind."""
        shapes = jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), self.state)
        return self.graphdef, str(jax.tree.leaves(shapes))


def _split(block: nnx.Module) -> _Split:
    copy = nnx.merge(*nnx.split(block))  # another structure around the same arrays
    layers = [module for _, module in nnx.iter_modules(copy) if isinstance(module, DropPath)]
    rates = {layer.rate for layer in layers} or {0.0}
    if len(rates) > 1:
        raise ValueError(f"a block of a Stack has one rate of stochastic depth; this one has {sorted(rates)}")
    for layer in layers:
        layer.rate = 0.0  # blocks that differ in their rates alone are one program, which takes the rate as an array
    graphdef, state = nnx.split(copy)
    return _Split(block, graphdef, state, rates.pop())


def _apply(
    graphdef: nnx.GraphDef, state: nnx.State, drop_path: Array, x: Array, shared: Shared
) -> tuple[Array, nnx.State]:
    """Return the block's output, and the state that the call changed: running statistics, counts of random streams."""
    state = complete(state)
    before = {path: variable.get_raw_value() for path, variable in nnx.to_flat_state(state)}
    block = nnx.merge(graphdef, state)
    y = block(x, drop_path, **shared)
    after = nnx.to_flat_state(nnx.state(block))
    return y, nnx.from_flat_state([(path, v) for path, v in after if v.get_raw_value() is not before[path]])
