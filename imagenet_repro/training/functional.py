"""A Flax NNX module as pure functions of flat dictionaries, for the compiled step."""

import copy
import dataclasses
from collections.abc import Set
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from imagenet_repro.models import wrong_size
from imagenet_repro.models.image_text import Similarity
from imagenet_repro.models.nn.layers import BatchNorm, Conv, Linear
from imagenet_repro.models.nn.network import WithAuxiliary, tensor_name
from imagenet_repro.models.nn.shards import Shard
from imagenet_repro.models.nn.stack import Stack
from imagenet_repro.models.spec import Origin

Tensors = dict[str, Any]  # arrays by the name they have in the module, such as "layer1.0.conv1.weight"


class FunctionalNetwork:
    """A module, split once, as functions of its parameters in training and in evaluation mode.

    Any parameter may also be a `Shard`. Those of the blocks of a `Stack` are gathered block by block, the others
    before the network is called. What a layer casts to its own dtype is cast before it is gathered.

    Args:
      model: a module of `models.create`, or of `models.abstract` where parameters come from elsewhere.
      cross_device_norm: whether batch norm computes its statistics over the axis "data", not over one device's share.
      norm_group: the neighbours along that axis that share statistics, where `cross_device_norm` is set; 0: all.
      frozen: names of parameters that no step changes; blocks of a `Stack` that differ in them do not share a loop,
        since a loop computes the same gradients for all of its blocks.
      frozen_norm: whether batch norm whose parameters are all frozen stays in training mode, "training", or normalises
        by its running statistics, which then stay as they are, "evaluation".

    Attributes:
      params: initial parameters by name.
      stats: initial running statistics by name.
      fixed_stats: names of the statistics that stay as they are.
    """

    def __init__(
        self,
        model: nnx.Module,
        *,
        cross_device_norm: bool = False,
        norm_group: int = 0,
        frozen: Set[str] = frozenset(),
        frozen_norm: str = "evaluation",
    ):
        self._origin: Origin | None = getattr(model, "origin", None)
        for _, module in nnx.iter_modules(model):
            if isinstance(module, BatchNorm):
                module.axis_name, module.group = ("data", norm_group) if cross_device_norm else (None, 0)
        self._stack_names = tuple(
            tensor_name(path) for path, module in nnx.iter_modules(model) if isinstance(module, Stack)
        )
        self._cast_dtypes = {
            tensor_name((*path, "weight")): module.dtype
            for path, module in nnx.iter_modules(model)
            if isinstance(module, Conv | Linear)
        }
        for path, module in nnx.iter_modules(model):
            if isinstance(module, Stack) and frozen:
                module.frozen = tuple(_below(frozen, tensor_name((*path, i))) for i in range(len(module)))
        model.train()
        self.fixed_stats = _fix_norms(model, frozen) if frozen_norm == "evaluation" else frozenset()
        self._train_def, params, stats, self._rngs = nnx.split(model, nnx.Param, nnx.BatchStat, nnx.RngState)
        model.eval()
        self._eval_def = nnx.split(model, nnx.Param, nnx.BatchStat, nnx.RngState)[0]
        self._params_shape, self._stats_shape = jax.eval_shape(lambda: (params, stats))
        self.params: Tensors = flat(params)
        self.stats: Tensors = flat(stats)

    def release(self) -> None:
        """Keep only the shapes of the initial values, so that a run does not hold a second set of weights."""
        self.params, self.stats = jax.eval_shape(lambda: (self.params, self.stats))

    def with_remat(self, policy: str) -> "FunctionalNetwork":
        """Return the network with this policy (of `stack.POLICIES`) in every `Stack` that leaves the choice open."""
        other = copy.copy(self)
        other._train_def = self._with_remat(self._train_def, policy)
        other._eval_def = self._with_remat(self._eval_def, policy)
        return other

    @property
    def chooses_remat(self) -> bool:
        """Whether a `Stack` of the network leaves open what the backward pass computes again."""
        model = nnx.merge(self._train_def, self._params_shape, self._stats_shape, self._rngs)
        return any(isinstance(module, Stack) and module.chooses_remat for _, module in nnx.iter_modules(model))

    def _with_remat(self, graphdef: nnx.GraphDef, policy: str) -> nnx.GraphDef:
        model = nnx.merge(graphdef, self._params_shape, self._stats_shape, self._rngs)
        for _, module in nnx.iter_modules(model):
            if isinstance(module, Stack) and module.chooses_remat:
                module.remat_policy = policy
        return nnx.split(model, nnx.Param, nnx.BatchStat, nnx.RngState)[0]

    def train(
        self, params: Tensors, stats: Tensors, key: PRNGKeyArray, images: Float[Array, "b h w 3"]
    ) -> tuple[Float[Array, "b classes"] | WithAuxiliary, Tensors]:
        """Return the logits in training mode and the updated running statistics.

        `key` drives dropout and other random layers. A network with auxiliary heads also returns their logits and the
        weight of their losses.
        """
        model = self._training_model(params, stats, key)
        with wrong_size.explained(self._origin, images.shape):
            output = model(images)
        return output, flat(nnx.state(model, nnx.BatchStat))

    def train_pairs(
        self,
        params: Tensors,
        stats: Tensors,
        key: PRNGKeyArray,
        images: Float[Array, "b h w 3"],
        tokens: Int[Array, "b l"],
    ) -> tuple[Similarity, Tensors]:
        """Return what a contrastive loss needs of images and texts, and the updated running statistics.

        The module is an `ImageTextNetwork`, in training mode; the other arguments are those of `train`.
        """
        model = self._training_model(params, stats, key)
        return model(images, tokens), flat(nnx.state(model, nnx.BatchStat))

    def _training_model(self, params: Tensors, stats: Tensors, key: PRNGKeyArray) -> Any:
        return nnx.merge(
            self._train_def,
            nest(self._params_shape, self._prepare(params)),
            nest(self._stats_shape, stats),
            reseed(self._rngs, key),
        )

    def evaluate(self, params: Tensors, stats: Tensors, images: Float[Array, "b h w 3"]) -> Float[Array, "b classes"]:
        """Return the logits in evaluation mode, float32."""
        with wrong_size.explained(self._origin, images.shape):
            return self.model(params, stats)(images)

    def model(self, params: Tensors, stats: Tensors) -> nnx.Module:
        """Return the module in evaluation mode with these parameters and statistics."""
        params = self._prepare(params)
        return nnx.merge(self._eval_def, nest(self._params_shape, params), nest(self._stats_shape, stats), self._rngs)

    def _prepare(self, params: Tensors) -> Tensors:
        """Return the parameters with the shards gathered that no `Stack` gathers, and the types of the others set."""
        return {name: self._prepare_one(name, value) for name, value in params.items() if name in self.params}

    def _prepare_one(self, name: str, value: Any) -> Any:
        if not isinstance(value, Shard):
            return value
        shard = dataclasses.replace(value, dtype=self._cast_dtypes.get(name, value.dtype))
        return shard if name.startswith(tuple(f"{stack}." for stack in self._stack_names)) else shard.gather()


def _below(names: Set[str], module: str) -> frozenset[str]:
    """Return the names of parameters below a module, without that of the module."""
    return frozenset(name.removeprefix(f"{module}.") for name in names if name.startswith(f"{module}."))


def _fix_norms(model: nnx.Module, frozen: Set[str]) -> frozenset[str]:
    """Switch batch norm with frozen parameters to its running statistics, in place; return the statistics' names."""
    fixed = set()
    for path, module in nnx.iter_modules(model):
        own = {tensor_name((*path, part)) for part in ("weight", "bias")}
        if isinstance(module, BatchNorm) and own <= frozen:
            module.use_running_average = True
            fixed |= {tensor_name((*path, part)) for part in ("running_mean", "running_var")}
    return frozenset(fixed)


def flat(state: nnx.State) -> Tensors:
    """Return the arrays of `state` by dotted name."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {_name(path): leaf for path, leaf in leaves}


def nest(shape: nnx.State, tensors: Tensors) -> nnx.State:
    """Return a state with the structure of `shape` and the arrays of `tensors`; the inverse of `flat`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: tensors[_name(path)], shape)


def reseed(rngs: nnx.State, key: PRNGKeyArray) -> nnx.State:
    """Return random streams that start from `key`, each from a different key derived from it."""
    leaves, structure = jax.tree.flatten(rngs)
    fresh = [
        jax.random.fold_in(key, i)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else jnp.zeros(leaf.shape, leaf.dtype)
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, fresh)


def _name(path: tuple) -> str:
    parts = [str(getattr(entry, "key", getattr(entry, "idx", getattr(entry, "name", "")))) for entry in path]
    return tensor_name(part for part in parts if part not in ("value", "raw_value"))
