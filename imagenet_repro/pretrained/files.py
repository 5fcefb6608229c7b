"""Files of weights: `.safetensors`, `.pth` (also `.pt`, `.bin`) and the `.npz` of the original ViT releases.

What a file is, its first bytes say, not its name. Our own are `.safetensors` under the reference's names, which timm
and torchvision load; their metadata says which network they are of and how images were prepared for it.
"""

import dataclasses
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from imagenet_repro import __version__
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.models.spec import Origin, Preprocessing
from imagenet_repro.pretrained import names, pickles, tensors

METADATA = "imagenet_repro"  # our key in the metadata of a .safetensors, whose values are texts
# Where training programs put the weights in what they save; timm's order, averaged weights first.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # of torch's DataParallel and of torch.compile
_FORMATS = "files of weights are .safetensors, .pth of torch.save, and .npz of the original ViT releases"
_HALF = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


@dataclasses.dataclass(frozen=True)
class Weights:
    """What a file holds.

    Attributes:
      path: of the file.
      tensors: arrays under our names in PyTorch's layout; 16-bit floats have become float32.
      notes: what was done to read them, a sentence each.
      preprocessing: of the images, where the file says it.
      origin: the network that the file says it is of.
    """

    path: Path
    tensors: Mapping[str, np.ndarray]
    notes: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    origin: Origin | None = None


def read(path: str | Path) -> Weights:
    """The weights in a file; those of a `.pth` stay on the disk until they are used.

    Raises:
      UserError: there is no such file, it is damaged or of no format that is read here, it is a pickle that would run
        code, or there are no tensors in it.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"{path}: there is no such file of weights; download it first, models of hubs are not fetched")
    try:
        found, metadata = _read(path)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # whatever the formats' readers raise on damaged bytes
        short = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} is damaged or cut short ({short}); download or write it again") from error
    found, notes = _unwrap(found, path)
    renamed, scheme = names.convert(found)
    if scheme:
        notes.append(f"renamed from the names of {scheme}")
    ready = {name: array.astype(np.float32) if array.dtype in _HALF else array for name, array in renamed.items()}
    return Weights(path, ready, tuple(notes), *_about(metadata, path))


def _read(path: Path) -> tuple[Any, Mapping[str, str]]:
    """What the file holds, and its metadata."""
    with path.open("rb") as file:
        start = file.read(16)
    if start[8:9] == b"{":
        with safetensors.safe_open(path, "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    if start.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            arrays = any(name.endswith(".npy") for name in archive.namelist())
        return (_read_npz(path) if arrays else pickles.read_zip(path)), {}
    if start.startswith(b"\x80\x02"):
        return pickles.read_legacy(path), {}
    if path.suffix == ".safetensors":
        raise ValueError("its header is not that of a .safetensors")
    raise UserError(f"{path} is of an unknown format (it begins with {start!r}); {_FORMATS}")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    # NumPy has no bfloat16 of its own and writes it as two bytes without a type.
    return {name: a.view(ml_dtypes.bfloat16) if a.dtype == "V2" else a for name, a in arrays.items()}


def _unwrap(value: Any, path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The dictionary of tensors in what a training program saved, and what had to be done to find it."""
    notes = []
    while isinstance(value, Mapping):
        key = next((key for key in _WRAPPERS if isinstance(value.get(key), Mapping)), None)
        if key is None:
            break
        others = ", ".join(str(other) for other in value if other != key)
        notes.append(f"took '{key}'" + (f" and left {others}" if others else ""))
        value = value[key]
    entries = value.items() if isinstance(value, Mapping) else ()
    arrays = {str(name): array for name, array in entries if isinstance(array, np.ndarray)}
    arrays.pop("n_averaged", None)  # torch's AveragedModel counts its updates beside the weights
    if not arrays:
        raise UserError(f"{path} holds no tensors; {_FORMATS}")
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in arrays)), ""):
        notes.append(f"left '{prefix}' out of every name")
        arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return arrays, notes


def _about(metadata: Mapping[str, str], path: Path) -> tuple[Preprocessing | None, Origin | None]:
    """What our own metadata says; nothing in files of others."""
    if METADATA not in metadata:
        return None, None
    try:
        about = json.loads(metadata[METADATA])
        stated = about["preprocessing"]
        if stated is not None:
            stated = Preprocessing(**stated | {key: tuple(stated[key]) for key in ("mean", "std")})
        return stated, Origin(about["name"], about["num_classes"], about["options"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: its metadata '{METADATA}' cannot be understood ({error}); write it again") from error


def write(model: nnx.Module, path: str | Path, *, preprocessing: Preprocessing | None = None, name: str = "") -> None:
    """Writes a model's tensors as `.safetensors`, whole or not at all, float32 under the reference's names.

    Args:
      model: made by `models.create`, which knows its name, number of classes and options.
      path: of the file; replaced where it exists.
      preprocessing: how the images were prepared on which these weights are to be measured; None: not stated.
      name: to state in place of the network's own.

    Raises:
      UserError: the file has another ending than `.safetensors`.
      SaveError: it could not be written.
    """
    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: weights are written as .safetensors alone; name the file so")
    about = {
        "name": name or model.origin.name,
        "num_classes": model.origin.num_classes,
        "options": model.origin.options,
        "preprocessing": dataclasses.asdict(preprocessing) if preprocessing else None,
        "version": __version__,
    }
    metadata = {"format": "pt", METADATA: json.dumps(about)}
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.to_torch(model).items()}
    part = path.with_name(f".{path.name}.part")
    try:
        safetensors.numpy.save_file(arrays, part, metadata)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise SaveError(f"{path} could not be written: {error}; mend the cause or choose another place") from error
