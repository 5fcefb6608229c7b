"""Names of a network's parameters, and which of them belong to its heads."""

import functools
from collections.abc import Mapping
from typing import Any

from flax import nnx

from imagenet_repro.models import registry
from imagenet_repro.models.nn.network import tensor_name
from imagenet_repro.models.spec import Origin


def shapes(network: nnx.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter of a network or a part of one by its name in the published weights."""
    state = nnx.to_flat_state(nnx.state(network, nnx.Param))
    return {tensor_name(path): tuple(variable.get_raw_value().shape) for path, variable in state}


def head_names(origin: Origin) -> frozenset[str]:
    """Return the names of the classifiers' parameters, auxiliary ones included: their shapes follow the classes."""
    return _head_names(origin.name, origin.num_classes, _Options(origin.options))


class _Options(dict):
    """Options of a network that a cache can hold."""

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return hash(repr(sorted(self.items())))


@functools.lru_cache(maxsize=8)
def _head_names(name: str, num_classes: int, options: Mapping[str, Any]) -> frozenset[str]:
    own, other = (shapes(registry.abstract(name, classes, **options)) for classes in (num_classes, num_classes + 1))
    return frozenset(name for name, shape in own.items() if other[name] != shape)
