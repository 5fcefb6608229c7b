"""Files of weights: `.safetensors`, `.pth` (also `.pt`, `.bin`) and the `.npz` of the original ViT releases.

What a file is, its first bytes say, not its name. Our own are `.safetensors` under the reference's names, which timm
and torchvision load; their metadata says which network they are of and how images were prepared for it.
"""

import dataclasses
import json
import math
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
_ALONE = ("net", "params", "network", "teacher", "student")  # where it is the only one of them, beside no tensors
_PREFIXES = ("module.", "_orig_mod.")  # of torch's DataParallel and of torch.compile
_FORMATS = "files of weights are .safetensors, .pth of torch.save, and .npz of the original ViT releases"
_SAFETENSORS = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")
_HALF = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


@dataclasses.dataclass(frozen=True)
class Weights:
    """What a file holds.

    Attributes:
      path: of the file.
      tensors: arrays under our names in PyTorch's layout; 16-bit floats have become float32.
      notes: what was done to read them, a sentence each.
      preprocessing: of the images, where the file says it or its publisher is known by the names.
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
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{path} needs more memory than there is; free some, or write the file again") from error
    except Exception as error:  # whatever the formats' readers raise on damaged bytes
        short = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} is damaged or cut short ({short}); download or write it again") from error
    found, notes = _unwrap(found, path)
    try:
        converted = names.convert({name: tensors.to_numpy(name, array) for name, array in found.items()})
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if converted.scheme:
        notes.append(f"renamed from the names of {converted.scheme.title}")
    if converted.dropped:
        notes.append(f"left out {', '.join(converted.dropped)}, of which no network here has any use")
    ready = {n: a.astype(np.float32) if a.dtype in _HALF else a for n, a in converted.tensors.items()}
    preprocessing, origin = _about(metadata, path)
    if converted.scheme and preprocessing is None:
        preprocessing = converted.scheme.preprocessing(converted.tensors)
    return Weights(path, ready, tuple(notes), preprocessing, origin)


def _read(path: Path) -> tuple[Any, Mapping[str, str]]:
    """What the file holds, and its metadata."""
    with path.open("rb") as file:
        start = file.read(16)
    if start[8:9] == b"{":
        return _read_safetensors(path)
    if start.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            arrays = any(name.endswith(".npy") for name in archive.namelist())
        return (_read_npz(path) if arrays else pickles.read_zip(path)), {}
    if start.startswith(b"\x80\x02"):
        return pickles.read_legacy(path), {}
    if path.suffix == ".safetensors":
        raise ValueError("its header is not that of a .safetensors")
    raise UserError(f"{path} is of an unknown format (it begins with {start!r}); {_FORMATS}")


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    with safetensors.safe_open(path, "np") as file:
        names_there = list(file.keys())
        for name in names_there:
            dtype = file.get_slice(name).get_dtype()
            if dtype not in _SAFETENSORS:
                raise UserError(
                    f"{path}: tensor '{name}' is of the type {dtype}, which is not read here; write it as BF16 or F32"
                )
        return {name: file.get_tensor(name) for name in names_there}, file.metadata() or {}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    _check_claims(path)
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    # NumPy has no bfloat16 of its own and writes it as two bytes without a type.
    return {name: a.view(ml_dtypes.bfloat16) if a.dtype == "V2" else a for name, a in arrays.items()}


def _check_claims(path: Path) -> None:
    """Raises UserError where an array's header claims more numbers than follow it, before there is room made for them.

    A compressed member says itself how long it is; no deflated one is longer than 1,032 times its bytes.
    """
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            packed = min(info.compress_size, path.stat().st_size)
            there = min(info.file_size, packed * (1 if info.compress_type == zipfile.ZIP_STORED else 1032))
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                if version not in header:
                    continue  # NumPy writes it where field names are not Latin: never numbers, refused when read
                shape, _, dtype = header[version](member)
            claimed = math.prod(shape) * dtype.itemsize
            if claimed > there:
                raise UserError(
                    f"{path}: array '{info.filename}' claims {claimed:,} bytes, the file has {there:,}; it is damaged,"
                    " download or write it again"
                )


def _unwrap(value: Any, path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The dictionary of tensors in what a training program saved, and what had to be done to find it."""
    notes = []
    while isinstance(value, Mapping):
        key = _wrapper(value)
        if not key:
            break
        others = ", ".join(str(other) for other in value if other != key)
        notes.append(f"took '{key}'" + (f" and left {others}" if others else ""))
        value = value[key]
    entries = value.items() if isinstance(value, Mapping) else ()
    arrays = {}
    for name, array in entries:
        if isinstance(array, np.ndarray) and arrays.setdefault(str(name), array) is not array:
            raise UserError(f"{path} has two tensors '{name}'; leave one of them out")
    arrays.pop("n_averaged", None)  # torch's AveragedModel counts its updates beside the weights
    if not arrays:
        raise UserError(f"{path} holds no tensors where they are looked for: {_content(value)}; {_FORMATS}")
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in arrays)), ""):
        notes.append(f"left '{prefix}' out of every name")
        arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return arrays, notes


def _wrapper(value: Mapping[Any, Any]) -> str:
    """The key under which the weights are; empty: they are here, or it cannot be told."""
    known = next((key for key in _WRAPPERS if isinstance(value.get(key), Mapping)), "")
    if known or any(isinstance(entry, np.ndarray) for entry in value.values()):
        return known
    found = [key for key in _ALONE if isinstance(value.get(key), Mapping)]
    return found[0] if len(found) == 1 else ""


def _content(value: Any) -> str:
    """What is in a file where weights should be, as half a sentence."""
    if not isinstance(value, Mapping):
        return f"it is a {type(value).__name__}, not a dictionary of tensors by name"
    if not value:
        return "it is empty"
    keys = ", ".join(f"'{key}'" for key in list(value)[:10]) + (", …" if len(value) > 10 else "")
    known = ", ".join(f"'{key}'" for key in (*_WRAPPERS, *_ALONE))
    return f"it has the keys {keys}, and tensors may be under one of {known}; save the one that is meant alone"


def _about(metadata: Mapping[str, str], path: Path) -> tuple[Preprocessing | None, Origin | None]:
    """What our own metadata says; nothing in files of others."""
    if METADATA not in metadata:
        return None, None
    try:
        about = json.loads(metadata[METADATA])
        kinds = {"name": str, "num_classes": int, "options": dict}
        for key, kind in kinds.items():
            if type(about[key]) is not kind:
                raise ValueError(f"'{key}' is {about[key]!r}")
        stated = about["preprocessing"]
        return stated if stated is None else _preprocessing(stated), Origin(*(about[key] for key in kinds))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: its metadata '{METADATA}' cannot be understood ({error}); write it again") from error


def _preprocessing(stated: Mapping[str, Any]) -> Preprocessing:
    """What the metadata says of the images; ValueError, KeyError or TypeError where it is not that."""
    found = Preprocessing(**stated | {key: tuple(map(float, stated[key])) for key in ("mean", "std")})
    for field in dataclasses.fields(Preprocessing):
        value, default = getattr(found, field.name), field.default
        if type(value) is not type(default) and not (type(default) is float and type(value) is int):
            raise ValueError(f"'{field.name}' is {value!r}")
        if isinstance(default, tuple) and len(value) != len(default):
            raise ValueError(f"'{field.name}' is {value!r}")
    if found.crop not in ("center", "squash"):
        raise ValueError(f"'crop' is {found.crop!r}")
    return found


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as JSON has them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r} is no number, text, list or dictionary")


def write(model: nnx.Module, path: str | Path, *, preprocessing: Preprocessing | None = None, name: str = "") -> None:
    """Writes a model's tensors as `.safetensors`, whole or not at all, float32 under the reference's names.

    Args:
      model: made by `models.create`, which knows its name, number of classes and options.
      path: of the file; replaced where it exists.
      preprocessing: how the images are prepared on which these weights are to be measured; None: as the file stated
        that `load` put into the model, and nothing where there was none.
      name: to state in place of the network's own.

    Raises:
      UserError: the file has another ending than `.safetensors`, or an option is nothing that JSON has.
      SaveError: it could not be written.
    """
    preprocessing = preprocessing or getattr(model, "preprocessing", None)
    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: weights are written as .safetensors alone; name the file so")
    about = {
        "name": name or model.origin.name,
        "num_classes": int(model.origin.num_classes),
        "options": model.origin.options,
        "preprocessing": dataclasses.asdict(preprocessing) if preprocessing else None,
        "version": __version__,
    }
    try:
        metadata = {"format": "pt", METADATA: json.dumps(about, default=_plain)}
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: the network's options {about['options']} cannot be written: {error}") from error
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
