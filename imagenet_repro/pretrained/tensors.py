"""A model's tensors under the reference's names and in its layout, as arrays in memory.

Our modules have the reference's names, so a tensor's name is its path (`tensor_name`). Only the order of a kernel's
axes differs: a layer's `torch_axes` lists our axes in PyTorch's order.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from imagenet_repro.errors import UserError
from imagenet_repro.models.nn.network import tensor_name

Model = TypeVar("Model", bound=nnx.Module)

IGNORED = "num_batches_tracked"  # PyTorch's count of steps, which only matters for cumulative averages


def _tensors(model: nnx.Module) -> Iterator[tuple[str, nnx.Variable, tuple[int, ...]]]:
    """Yield the reference's name, our variable, and its axes in the reference's order."""
    for path, module in nnx.iter_modules(model):
        for name, variable in vars(module).items():
            if isinstance(variable, nnx.Param | nnx.BatchStat):
                axes = getattr(module, "torch_axes", ()) if name == "weight" else ()
                yield tensor_name((*path, name)), variable, axes or tuple(range(variable.ndim))


def shapes(model: nnx.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter and running statistic by the reference's name, in its layout."""
    return {name: tuple(variable.shape[axis] for axis in axes) for name, variable, axes in _tensors(model)}


def to_numpy(name: str, tensor: Any) -> np.ndarray:
    """Return an array of NumPy, JAX or PyTorch as NumPy's, without importing PyTorch.

    Args:
      name: of the tensor, for messages.
      tensor: anything that NumPy understands, or a tensor of PyTorch on any device, with or without a gradient.

    Raises:
      UserError: the tensor is not of booleans, integers or floats, or its numbers cannot be read.
    """
    try:
        array = np.asarray(_from_torch(name, tensor) if hasattr(tensor, "detach") else tensor)
    except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"tensor '{name}' cannot be made an array: {reason}; give its numbers as a NumPy array") from (
            error
        )
    if not any(jnp.issubdtype(array.dtype, kind) for kind in (np.bool_, np.integer, np.floating)):
        raise UserError(f"tensor '{name}' is of the type {array.dtype}; weights are booleans, integers or floats")
    return array


def _from_torch(name: str, tensor: Any) -> Any:
    """Return a tensor of PyTorch as NumPy's; bfloat16, which NumPy lacks, becomes float32."""
    layout, dtype = str(getattr(tensor, "layout", "torch.strided")), str(tensor.dtype).removeprefix("torch.")
    if getattr(tensor, "is_meta", False):
        raise UserError(f"tensor '{name}' is on the device 'meta' and has no numbers; load its weights first")
    if layout != "torch.strided" or getattr(tensor, "is_quantized", False):
        raise UserError(f"tensor '{name}' is sparse or quantised ({layout}, {dtype}); make it dense floats first")
    if dtype.startswith(("float8", "float4")):
        raise UserError(
            f"tensor '{name}' is of the type {dtype}, whose scale is not known here; make it float32 first"
        )
    tensor = tensor.detach().cpu()
    return (tensor.float() if dtype == "bfloat16" else tensor).numpy()


def load_torch(model: Model, state_dict: Mapping[str, Any]) -> Model:
    """Put the reference's tensors into the model, in place, and return the model.

    Args:
      model: of arrays or of shapes.
      state_dict: arrays or PyTorch's tensors by the reference's names, in its layout (kernels [out, in, height,
        width], linear weights [out, in]); `num_batches_tracked` is ignored.

    Raises:
      UserError: a tensor is missing, is not in the model or has another shape, or as `to_numpy`; the message
        names the first such tensor, and the model is unchanged.
    """
    given = {str(name): to_numpy(name, a) for name, a in state_dict.items() if not str(name).endswith(IGNORED)}
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
    """Return the nearest of the names in brackets, or nothing; a network has too many names to list them."""
    close = difflib.get_close_matches(name, names, n=1)
    return f" (the nearest is '{close[0]}')" if close else ""


def _to_ours(name: str, given: Mapping[str, np.ndarray], variable: nnx.Variable, axes: tuple[int, ...]) -> np.ndarray:
    if name not in given:
        raise UserError(f"the weights lack the tensor '{name}'{_similar(name, given)}")
    expected = tuple(variable.shape[axis] for axis in axes)
    if given[name].shape != expected:
        raise UserError(f"tensor '{name}' has the shape {given[name].shape}; the model expects {expected}")
    # Always a copy: JAX would share the memory of an array that its owner, such as PyTorch, may change later.
    return np.array(given[name].transpose(np.argsort(axes)), dtype=variable.dtype, order="C")


def to_torch(model: nnx.Module, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Return the model's parameters and running statistics under the reference's names, in its layout, as float32.

    Args:
      model: of arrays.
      names: of the tensors to return; None: all.

    Raises:
      UserError: the model has only shapes.
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
