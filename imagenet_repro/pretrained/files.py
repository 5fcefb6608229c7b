"""Files of weights: `.safetensors`, `.pth` (also `.pt`, `.bin`) and the `.npz` of the original ViT releases.

The format of a file follows from its first bytes, not from its name. Our own files are `.safetensors` under the
reference's names, which timm and torchvision load; their metadata states the network and how images were prepared.
"""

import contextlib
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

from imagenet_repro import __version__
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.spec import Origin, Preprocessing
from imagenet_repro.pretrained import names, pickles, tensors
from imagenet_repro.storage import files, user

METADATA = "imagenet_repro"  # our key in the metadata of a .safetensors file; its values are strings
# The keys under which training programs save weights, in timm's order: averaged weights first.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
# Such keys too, where a file has only one of them and no tensors beside it.
_ALONE = ("net", "params", "network", "teacher", "student")
_PREFIXES = ("module.", "_orig_mod.")  # of torch's DataParallel and of torch.compile
_FORMATS = "files of weights are .safetensors, .pth of torch.save, and .npz of the original ViT releases"
_SAFETENSORS = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")
_HALF = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


@dataclasses.dataclass(frozen=True)
class Weights:
    """The content of a file of weights.

    Attributes:
      path: of the file.
      tensors: arrays under our names in PyTorch's layout; 16-bit floats are converted to float32.
      notes: a sentence for each conversion that reading needed.
      preprocessing: of the images, where the file states it or its names show the publisher.
      origin: the network, where the file states it.
    """

    path: Path
    tensors: Mapping[str, np.ndarray]
    notes: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    origin: Origin | None = None


def read(path: str | Path) -> Weights:
    """Return the weights in a file; those of a `.pth` file stay on the disk until they are used.

    Raises:
      UserError: the file does not exist, is damaged, has an unknown format or no tensors, or is a pickle that would
        run code.
    """
    path = user.expand(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file of weights; download it first (hubs are not accessed)")
    try:
        content, metadata = _read(path)
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{path} needs more memory than there is; free some, or write the file again") from error
    except Exception as error:  # the formats' readers raise many types on damaged bytes
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} is damaged or cut short ({reason}); download or write it again") from error
    arrays, notes = _unwrap(content, path)
    try:
        converted = names.convert({name: tensors.to_numpy(name, array) for name, array in arrays.items()})
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if converted.scheme:
        notes.append(f"renamed from the names of {converted.scheme.title}")
    if converted.dropped:
        notes.append(f"left out {', '.join(converted.dropped)}, which no network here uses")
    ready = {n: a.astype(np.float32) if a.dtype in _HALF else a for n, a in converted.tensors.items()}
    preprocessing, origin = _about(metadata, path)
    if converted.scheme and preprocessing is None:
        preprocessing = converted.scheme.preprocessing(converted.tensors)
    return Weights(path, ready, tuple(notes), preprocessing, origin)


def _read(path: Path) -> tuple[Any, Mapping[str, str]]:
    """Return the content of the file and its metadata."""
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
        names = list(file.keys())
        for name in names:
            dtype = file.get_slice(name).get_dtype()
            if dtype not in _SAFETENSORS:
                raise UserError(
                    f"{path}: tensor '{name}' is of the type {dtype}, which is not supported; write it as BF16 or F32"
                )
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    _check_claims(path)
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    # NumPy has no bfloat16 and writes it as two bytes without a type.
    return {name: a.view(ml_dtypes.bfloat16) if a.dtype == "V2" else a for name, a in arrays.items()}


def _check_claims(path: Path) -> None:
    """Check that no array's header claims more numbers than follow it, before memory is allocated for them.

    A compressed member states its own length; deflation shrinks data at most 1,032 times. Raises UserError.
    """
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            packed = min(info.compress_size, path.stat().st_size)
            available = min(info.file_size, packed * (1 if info.compress_type == zipfile.ZIP_STORED else 1032))
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                if version not in header:
                    continue  # NumPy writes this version for structured arrays only, which are refused later
                shape, _, dtype = header[version](member)
            n_bytes = math.prod(shape) * dtype.itemsize
            if n_bytes > available:
                raise UserError(
                    f"{path}: array '{info.filename}' claims {n_bytes:,} bytes, the file has {available:,}; it is"
                    " damaged, download or write it again"
                )


def _unwrap(value: Any, path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the dictionary of tensors in a training program's file, and a note on every step to find it."""
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
    """Return the key of the weights; empty where `value` itself has them, or where the key is not clear."""
    known = next((key for key in _WRAPPERS if isinstance(value.get(key), Mapping)), "")
    if known or any(isinstance(entry, np.ndarray) for entry in value.values()):
        return known
    keys = [key for key in _ALONE if isinstance(value.get(key), Mapping)]
    return keys[0] if len(keys) == 1 else ""


def _content(value: Any) -> str:
    """Describe the content of a file where weights should be, as half a sentence."""
    if not isinstance(value, Mapping):
        return f"it is a {type(value).__name__}, not a dictionary of tensors by name"
    if not value:
        return "it is empty"
    keys = ", ".join(f"'{key}'" for key in list(value)[:10]) + (", …" if len(value) > 10 else "")
    known = ", ".join(f"'{key}'" for key in (*_WRAPPERS, *_ALONE))
    return f"it has the keys {keys}, and tensors may be under one of {known}; save only the one that you need"


def _about(metadata: Mapping[str, str], path: Path) -> tuple[Preprocessing | None, Origin | None]:
    """Return preprocessing and origin from our own metadata; None for both where there is none."""
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
    """Return the preprocessing in the metadata; ValueError, KeyError or TypeError where it is not valid."""
    preprocessing = Preprocessing(**{**stated, **{key: tuple(map(float, stated[key])) for key in ("mean", "std")}})
    for field in dataclasses.fields(Preprocessing):
        value, default = getattr(preprocessing, field.name), field.default
        if type(value) is not type(default) and not (type(default) is float and type(value) is int):
            raise ValueError(f"'{field.name}' is {value!r}")
        if isinstance(value, tuple) and isinstance(default, tuple) and len(value) != len(default):
            raise ValueError(f"'{field.name}' is {value!r}")
    if preprocessing.crop not in ("center", "squash"):
        raise ValueError(f"'crop' is {preprocessing.crop!r}")
    return preprocessing


def _plain(value: Any) -> Any:
    """Return NumPy's numbers and arrays as JSON can represent them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r} is no number, text, list or dictionary")


def require_suffix(path: str | Path) -> Path:
    """Return the path of a file of weights that will be written; raise UserError if its ending is another."""
    path = user.expand(path)
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: weights are written only as .safetensors; use a name with that ending")
    return path


def write(model: Network, path: str | Path, *, preprocessing: Preprocessing | None = None, name: str = "") -> None:
    """Write a model's tensors as `.safetensors`, float32 under the reference's names; the file appears complete.

    Args:
      model: made by `models.create`, so that it knows its name, number of classes and options.
      path: of the file; an existing file is replaced.
      preprocessing: of the images on which these weights are to be measured; None: the one that was stated in
        the file that `load` put into the model, if any.
      name: the name to state in place of the network's own.

    Raises:
      UserError: the path does not end in `.safetensors`, or JSON cannot represent an option.
      SaveError: the file cannot be written.
    """
    preprocessing = preprocessing or model.preprocessing
    origin = model.known_origin
    path = require_suffix(path)
    about = {
        "name": name or origin.name,
        "num_classes": int(origin.num_classes),
        "options": origin.options,
        "preprocessing": dataclasses.asdict(preprocessing) if preprocessing else None,
        "version": __version__,
    }
    try:
        metadata = {"format": "pt", METADATA: json.dumps(about, default=_plain)}
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: the network's options {about['options']} cannot be written: {error}") from error
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.to_torch(model).items()}
    part = files.part_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.numpy.save_file(arrays, part, metadata)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        with contextlib.suppress(OSError):  # the first error is the one to report
            part.unlink(missing_ok=True)
        raise SaveError(f"{path} could not be written: {error}; fix the cause or choose another path") from error
