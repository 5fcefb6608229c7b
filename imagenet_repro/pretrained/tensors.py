"""A model's tensors under the reference's names and in its layout, as arrays in memory.

Our modules bear the reference's names, so a tensor's name is its path. Only the order of a kernel's axes differs: a
layer's `torch_axes` says which of our axes PyTorch has first, second and so on.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import jax
import numpy as np
from flax import nnx

from imagenet_repro.errors import UserError

Model = TypeVar("Model", bound=nnx.Module)

IGNORED = "num_batches_tracked"  # PyTorch's count of steps; its batch norm uses it in no mode that we have


def _tensors(model: nnx.Module) -> Iterator[tuple[str, nnx.Variable, tuple[int, ...]]]:
    """The reference's name, our variable, and its axes in the reference's order."""
    for path, module in nnx.iter_modules(model):
        for name, variable in vars(module).items():
            if isinstance(variable, nnx.Param | nnx.BatchStat):
                axes = getattr(module, "torch_axes", ()) if name == "weight" else ()
                yield ".".join(map(str, (*path, name))), variable, axes or tuple(range(variable.ndim))


def shapes(model: nnx.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter and running statistic by the reference's name, in its layout."""
    return {name: tuple(variable.shape[axis] for axis in axes) for name, variable, axes in _tensors(model)}


def load_torch(model: Model, state_dict: Mapping[str, np.ndarray]) -> Model:
    """Puts the reference's tensors into the model, in place, and returns it.

    `state_dict` maps the reference's names to arrays in its layout (kernels [out, in, height, width], linear weights
    [out, in]); `num_batches_tracked` is ignored. Raises UserError naming the first tensor that is missing, that the
    model has no place for, or that has another shape; the model is then unchanged.
    """
    given = {name: np.asarray(array) for name, array in state_dict.items() if not name.endswith(IGNORED)}
    tensors = sorted(_tensors(model), key=lambda tensor: tensor[0])
    arrays = [_to_ours(name, given, variable, axes) for name, variable, axes in tensors]
    names = [name for name, *_ in tensors]
    for extra in given:
        if extra not in names:
            raise UserError(f"the model has no tensor '{extra}'{_similar(extra, names)}: other weights or options?")
    for (_, variable, _), array in zip(tensors, jax.device_put(arrays), strict=True):
        variable.set_value(array)
    return model


def _similar(name: str, names: Iterable[str]) -> str:
    """The nearest of the names in brackets; a network has too many to list them."""
    close = difflib.get_close_matches(name, names, n=1)
    return f" (the nearest is '{close[0]}')" if close else ""


def _to_ours(name: str, given: Mapping[str, np.ndarray], variable: nnx.Variable, axes: tuple[int, ...]) -> np.ndarray:
    if name not in given:
        raise UserError(f"the weights lack the tensor '{name}'{_similar(name, given)}")
    expected = tuple(variable.shape[axis] for axis in axes)
    if given[name].shape != expected:
        raise UserError(f"tensor '{name}' has the shape {given[name].shape}; the model expects {expected}")
    return np.ascontiguousarray(given[name].transpose(np.argsort(axes)), dtype=variable.dtype)


def to_torch(model: nnx.Module, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The model's parameters and running statistics under the reference's names, in its layout, as float32.

    `names` chooses some. Raises UserError where the model has shapes alone.
    """
    wanted = None if names is None else set(names)
    arrays = {}
    for name, variable, axes in _tensors(model):
        if wanted is not None and name not in wanted:
            continue
        value = variable.get_value()
        if isinstance(value, jax.ShapeDtypeStruct):
            raise UserError(f"the model has no values, '{name}' among them: make it with models.create, not abstract")
        arrays[name] = np.asarray(value).transpose(axes)
    return arrays
