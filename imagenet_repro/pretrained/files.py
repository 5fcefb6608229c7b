"""Files of weights: `.safetensors`, `.pth` (also `.pt`, `.bin`) and the `.npz` of the original ViT releases.

The format of a file follows from its first bytes, not from its name. Our own files are `.safetensors` under the
reference's names, which timm and torchvision load; their metadata states the network and how images were prepared.
"""

import contextlib
import dataclasses
import io
import itertools
import json
import math
import os
import re
import stat
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from imagenet_repro import __version__
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.spec import Kernel, Origin, Preprocessing
from imagenet_repro.pretrained import forms, model_files, names, packages, prefixes, published, tensors, torch_files
from imagenet_repro.pretrained.pickles import Content, Foreign
from imagenet_repro.scoring import sets
from imagenet_repro.storage import files, user

PROGRAM = "program"  # a key that we add to the metadata of a file which is a TorchScript program
METADATA = "imagenet_repro"  # our key in the metadata of a .safetensors file; its values are strings
# The keys under which training programs save weights, in timm's order: averaged weights first.
_WRAPPERS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema"),
    *("state_dict", "model_state_dict", "model", "module"),
)
# Such keys too, where a file has only one of them and no tensors beside it.
_ALONE = ("net", "params", "network", "teacher", "student")
_DEPTH = 8  # largest number of dictionaries around the weights
_FORMATS = "files of weights are .safetensors, .pth of torch.save, and .npz of the original ViT releases"
_SAFETENSORS = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")
_TAR = slice(257, 262)  # where a tar archive has its mark
_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")  # of pickles that begin with their protocol
_MAX_CLASSES, _MAX_PIXELS = 10**6, 10**5  # in the metadata of a file, for images of any side
_NAME = 512  # largest number of characters of a tensor's name
# Tensors may take so many times the size of their file, and so many bytes more: 16-bit floats double, and compression
# rarely saves half of real weights.
_EXPANSION, _ALLOWANCE = 8, 2**26
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
      class_names: names of the classes by index, where the file states them; empty: it does not.
      options: of the network, where the file or its publisher shows them and names and shapes of tensors do not.
      network: that the name of the file or a file beside it shows; empty: they do not.
      source: of the preprocessing, as the end of a sentence about it.
    """

    path: Path
    tensors: Mapping[str, np.ndarray]
    notes: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    origin: Origin | None = None
    class_names: tuple[str, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    network: str = ""
    source: str = ""


def read(path: str | Path) -> Weights:
    """Return the weights in a file; those of a `.pth` file stay on the disk until they are used.

    Memory and time are proportional to the size of the file.

    Args:
      path: of a file, of an index of shards, of a model's directory as `transformers` and timm write it, or
        `package:NAME` for the file in an installed package (`packages.PACKAGES`), or `hub:USER/NAME[@REVISION]` for
        that of a repository on the Hugging Face Hub (`hub.download`).

    Raises:
      UserError: the file does not exist, cannot be read, is damaged, has an unknown format or no tensors, or its
        weights are objects that only code from the file could build.
    """
    if str(path).startswith(packages.PREFIX):
        weights = read(packages.find_file(str(path)))
        network = packages.package(str(path)).network
        return dataclasses.replace(weights, origin=weights.origin or Origin(network, sets.CLASSES, {}))
    path = _regular_file(model_files.locate(path))
    try:
        return _weights(path)
    except UserError as error:
        raise UserError(_printable(str(error))) from error
    except MemoryError as error:
        raise UserError(f"{path} needs more memory than there is; free some, or write the file again") from error
    except Exception as error:  # the formats' readers raise many types on damaged bytes
        text = f"nothing is named {error}" if isinstance(error, KeyError) else str(error)
        reason = _printable(" ".join(text.split())[:200]) or type(error).__name__
        raise UserError(f"{path} is damaged or cut short ({reason}); download or write it again") from error


def _regular_file(path: str | Path) -> Path:
    """Return the path; UserError where it is not a file that can be opened and has content."""
    try:
        path = user.expand(path)
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise UserError(f"{path} is no regular file (a pipe or a device?); write the weights to a file first")
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{path}: there is no such file of weights; download it first, or name hub:USER/NAME"
        ) from error
    except (OSError, ValueError) as error:  # such as a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{_printable(str(path))} cannot be read: {reason}; name another file of weights") from error
    if is_empty:
        raise UserError(f"{path} is of an unknown format, since it is empty; download or write it again")
    return path


def _printable(text: str) -> str:
    """Return a text with escapes in place of characters that a terminal would not show or would act on."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def _weights(path: Path) -> Weights:
    if path.name.endswith(model_files.INDEX):
        arrays, notes, metadata = _read_shards(path)
    else:
        content, metadata = _read(path)
        arrays, notes = _unwrap(content, path)
        _check_expansion(arrays, path)
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
    if PROGRAM in metadata:
        notes.append("took the tensors of a TorchScript program, whose code was not run")
    read = Weights(path, ready, tuple(notes), preprocessing, origin, _stated_classes(metadata, path))
    return read if origin is not None else _recognise(read, converted, arrays, is_program=PROGRAM in metadata)


def _recognise(
    weights: Weights, converted: names.Converted, originals: Mapping[str, np.ndarray], *, is_program: bool
) -> Weights:
    """Return weights that do not state their network with what their name, their scheme and files beside them show."""
    stated, known = model_files.stated_beside(weights.path), published.by_file(weights.path.name)
    title = converted.scheme.title if converted.scheme else ""
    options = forms.options(converted.tensors, title, originals, is_program=is_program)
    notes: tuple[str, ...] = ()
    if not title and options == forms.TENSORFLOW:
        if re.match(r"efficientnet_(b|lite)\d", weights.path.name):  # so timm names its own form
            options = {}
        else:
            notes = ("taken to be converted from TensorFlow (timm's tf_ form), since no batches were counted",)
    options |= (dict(known.options) if known else {}) | dict(stated.options)
    by_scheme = converted.scheme.preprocessing(converted.tensors) if converted.scheme else None
    sources = (
        (stated.preprocessing, f"as stated in {stated.source}"),
        (known and known.preprocessing, f"as {known.source} has it for {known.weights}" if known else ""),
        (by_scheme, f"usual for weights of {title}"),
    )
    preprocessing, source = next((pair for pair in sources if pair[0] is not None), (None, ""))
    return dataclasses.replace(
        weights,
        notes=(*weights.notes, *notes, *stated.notes),
        preprocessing=preprocessing,
        options=options,
        network=stated.network or (known.network if known else ""),
        source=source,
    )


def _read_shards(index: Path) -> tuple[dict[str, np.ndarray], list[str], Mapping[str, str]]:
    """Return the tensors of all shards of an index, notes on them, and the metadata of the first."""
    arrays: dict[str, np.ndarray] = {}
    notes: list[str] = []
    first: Mapping[str, str] = {}
    paths = model_files.shards(index)
    for path in paths:
        content, metadata = _read(_regular_file(path))
        part, notes_of_part = _unwrap(content, path, keep_prefixes=True)
        _check_expansion(part, path)
        twice = next((name for name in part if name in arrays), None)
        if twice is not None:
            raise UserError(f"{index}: tensor '{twice}' is in two of its files; download them again")
        arrays |= part
        notes += [note for note in notes_of_part if note not in notes]
        first = first or metadata
    arrays, removed = _without_prefixes(arrays, index)
    return arrays, [f"read {len(paths)} shards", *notes, *removed], first


def _check_expansion(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Raise UserError for tensors of many times the size of their file.

    A tensor may repeat its numbers by strides of 0, and several may share theirs.
    """
    _check_size(sum(a.size * max(a.itemsize, 4 if a.dtype in _HALF else 1) for a in arrays.values()), path)


def _check_size(n_bytes: int, path: Path) -> None:
    """Raise UserError where a file's arrays would take many times its own size."""
    size = path.stat().st_size
    if n_bytes > _EXPANSION * size + _ALLOWANCE:
        raise UserError(
            f"{path} is damaged or was made to exhaust memory: its {size:,} bytes would become {n_bytes:,} bytes of"
            " tensors; write it again, without compression and without expanded tensors"
        )


def _read(path: Path) -> tuple[Content, Mapping[str, str]]:
    """Return the content of the file and its metadata."""
    with path.open("rb") as file:
        start = file.read(_TAR.stop)
    if start[8:9] == b"{":
        arrays, metadata = _read_safetensors(path)
        return _content_of(arrays), metadata
    if start.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            is_npz = any(name.endswith(".npy") for name in archive.namelist())
        if is_npz:
            return _content_of(_read_npz(path)), {}
        content = torch_files.read_zip(path)
        return content, {PROGRAM: "TorchScript"} if content.is_program else {}
    if start[:1] == b"\x80" and start[1:2] in _PROTOCOLS:
        return torch_files.read_legacy(path), {}
    if path.suffix == ".safetensors":
        raise ValueError("its header is not that of a .safetensors")
    if start[_TAR] == b"ustar":
        raise UserError(
            f"{path} is a tar archive: extract it and name the file of weights in it; one that PyTorch before 0.1.10"
            " saved has to be loaded and saved again with a newer PyTorch"
        )
    raise UserError(f"{path} is of an unknown format (it begins with {start[:16]!r}); {_FORMATS}")


def _content_of(arrays: dict[str, np.ndarray]) -> Content:
    return Content(arrays, {}, (), bool(arrays))


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
    with warnings.catch_warnings(action="ignore"):  # NumPy's, about headers that Python 2 wrote
        _check_claims(path)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    # NumPy has no bfloat16 and writes it as two bytes without a type.
    return {name: a.view(ml_dtypes.bfloat16) if a.dtype == "V2" else a for name, a in arrays.items()}


def _check_claims(path: Path) -> None:
    """Check that no array's header claims more numbers than follow it, before memory is allocated for them.

    A compressed member states its own length; deflation shrinks data at most 1,032 times. Raises UserError.
    """
    total = 0
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        if len({info.filename for info in infos}) != len(infos):
            raise zipfile.BadZipFile("two members have the same name")
        for info in infos:
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise zipfile.BadZipFile(f"'{info.filename}' is compressed in a way that NumPy does not use")
            packed = min(info.compress_size, path.stat().st_size)
            available = min(info.file_size, packed * (1 if info.compress_type == zipfile.ZIP_STORED else 1032))
            with archive.open(info) as member:
                n_bytes = _claimed_bytes(cast(io.BufferedIOBase, member))
            if n_bytes > available:
                raise UserError(
                    f"{path}: array '{info.filename}' claims {n_bytes:,} bytes, the file has {available:,}; it is"
                    " damaged, download or write it again"
                )
            total += available
    _check_size(total, path)


def _claimed_bytes(member: io.BufferedIOBase) -> int:
    """Return the number of bytes that the header of an array claims."""
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(member)
    if version not in headers:
        raise ValueError(f"an array is of the version {version}, which only structured arrays have")
    shape, _, dtype = headers[version](member)
    if dtype.itemsize == 0 or any(n < 0 for n in shape):
        raise ValueError(f"an array is of the shape {shape} and the type {dtype}")
    return math.prod(shape) * dtype.itemsize


def _without_prefixes(arrays: dict[str, np.ndarray], path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    try:
        return prefixes.remove(arrays)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _unwrap(content: Content, path: Path, *, keep_prefixes: bool = False) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the dictionary of tensors in a training program's file, and a note on every step to find it."""
    value, notes = content.value, []
    while isinstance(value, Mapping) and (key := _wrapper(value)):
        if len(notes) == _DEPTH:
            raise UserError(f"{path} has dictionaries in dictionaries without an end; save only the one that you need")
        others = [other for other in value if other != key]
        notes.append(f"took '{key}'" + (f" and left {_listed(others)}" if others else ""))
        value = value[key]
    entries = value if isinstance(value, Mapping) else {}
    arrays = {}
    for name, array in entries.items():
        if isinstance(array, np.ndarray) and arrays.setdefault(str(name), array) is not array:
            raise UserError(f"{path} has two tensors '{name}'; leave one of them out")
    _check_foreign(content, value, arrays, path)
    if content.foreign:
        notes.append(f"left objects of {_listed(content.foreign, most=4)} unbuilt, since only tensors are needed")
    arrays.pop("n_averaged", None)  # torch's AveragedModel counts its updates beside the weights
    if not arrays:
        raise UserError(f"{path} holds no tensors where they are looked for: {_content(value)}; {_FORMATS}")
    unlikely = next((name for name in arrays if len(name) > _NAME or not name.isprintable()), None)
    if unlikely is not None:
        raise UserError(f"{path} is damaged: {unlikely[:40]!r} is no name of a tensor; download or write it again")
    if keep_prefixes:
        return arrays, notes
    arrays, removed = _without_prefixes(arrays, path)
    return arrays, notes + removed


def _check_foreign(content: Content, value: Any, arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Raise UserError where weights are objects that only code of the file, or of PyTorch, could build."""
    foreign = {k: entry for k, entry in value.items() if isinstance(entry, Foreign)} if type(value) is dict else {}
    tensor = next((key for key, entry in foreign.items() if entry.name.startswith("torch")), None) if arrays else None
    if tensor is not None:
        raise UserError(
            f"{path}: tensor '{tensor}' is of the kind {foreign[tensor].name}, which is not supported; make it dense"
            " numbers of at least 16 bits with PyTorch and save it again"
        )
    if arrays or not content.foreign or (content.has_tensors and not foreign and not isinstance(value, Foreign)):
        return
    raise UserError(
        f"{path} was not read: unpickling it would call '{content.foreign[0]}', which is not part of a tensor, and"
        " such a file can run any code. Files of complete models do this: if you trust it, save its state_dict alone"
        " with PyTorch, as .safetensors or with torch.save"
    )


def _listed(values: Iterable[Any], most: int = 10) -> str:
    """Return the first of some names as a list in words; names may be long."""
    texts = [str(value)[:80] for value in itertools.islice(values, most + 1)]
    return ", ".join(texts[:most]) + (", …" if len(texts) > most else "")


def _wrapper(value: Mapping[Any, Any]) -> str:
    """Return the key of the weights; empty where `value` itself has them, or where the key is not clear."""
    full = [key for key in (*_WRAPPERS, *_ALONE) if _may_have_tensors(value.get(key))]
    known = next((key for key in full if key in _WRAPPERS), "")
    if known or any(isinstance(entry, np.ndarray) for entry in value.values()):
        return known
    keys = [key for key in full if key in _ALONE]
    return keys[0] if len(keys) == 1 else ""


def _may_have_tensors(value: Any) -> bool:
    kinds = (np.ndarray, Mapping, Foreign)
    return isinstance(value, Mapping) and any(isinstance(entry, kinds) for entry in value.values())


def _content(value: Any) -> str:
    """Describe the content of a file where weights should be, as half a sentence."""
    if not isinstance(value, Mapping):
        return f"it is a {type(value).__name__}, not a dictionary of tensors by name"
    if not value:
        return "it is empty"
    keys = _listed(f"'{str(key)[:60]}'" for key in value)
    known = _listed((f"'{key}'" for key in (*_WRAPPERS, *_ALONE)), most=len(_WRAPPERS) + len(_ALONE))
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
        if not 0 <= about["num_classes"] <= _MAX_CLASSES:
            raise ValueError(f"'num_classes' is {about['num_classes']}")
        stated = about["preprocessing"]
        return stated if stated is None else _preprocessing(stated), Origin(*(about[key] for key in kinds))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: its metadata '{METADATA}' cannot be understood ({error}); write it again") from error


def _stated_classes(metadata: Mapping[str, str], path: Path) -> tuple[str, ...]:
    """Return the names of the classes from our own metadata, which `_about` has checked; empty where it has none."""
    about = json.loads(metadata[METADATA]) if METADATA in metadata else {}
    names = about.get("classes", [])
    if not isinstance(names, list) or len(names) not in (0, about.get("num_classes", 0)):
        raise UserError(f"{path}: its metadata '{METADATA}' names other classes than it has; write it again")
    return tuple(map(str, names))


def _preprocessing(stated: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing in the metadata; ValueError, KeyError or TypeError where it is not valid."""
    preprocessing = Preprocessing(**{**stated, **{key: tuple(map(float, stated[key])) for key in ("mean", "std")}})
    for field in dataclasses.fields(Preprocessing):
        value, default = getattr(preprocessing, field.name), field.default
        if type(value) is not type(default) and not (type(default) is float and type(value) is int):
            raise ValueError(f"'{field.name}' is {value!r}")
        if isinstance(value, tuple) and isinstance(default, tuple) and len(value) != len(default):
            raise ValueError(f"'{field.name}' is {value!r}")
    choices = {"crop": ("center", "squash"), "kernel": get_args(Kernel)}
    for key, valid in choices.items():
        if getattr(preprocessing, key) not in valid:
            raise ValueError(f"'{key}' is {getattr(preprocessing, key)!r}")
    positive = (preprocessing.image_size, preprocessing.crop_ratio, *preprocessing.std)
    if not np.isfinite(preprocessing.mean).all() or not all(0 < number <= _MAX_PIXELS for number in positive):
        raise ValueError(f"{preprocessing} has a number out of range")
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


def write(
    model: Network,
    path: str | Path,
    *,
    preprocessing: Preprocessing | None = None,
    name: str = "",
    class_names: Sequence[str] = (),
) -> None:
    """Write a model's tensors as `.safetensors`, float32 under the reference's names; the file appears complete.

    Args:
      model: made by `models.create`, so that it knows its name, number of classes and options.
      path: of the file; an existing file is replaced.
      preprocessing: of the images on which these weights are to be measured; None: the one that was stated in
        the file that `load` put into the model, if any.
      name: the name to state in place of the network's own.
      class_names: names of the classes by index; empty: those of the file that `load` put into the model, if any.

    Raises:
      UserError: the path does not end in `.safetensors`, JSON cannot represent an option, or the names are not those
        of as many classes as the model has.
      SaveError: the file cannot be written.
    """
    preprocessing = preprocessing or model.preprocessing
    origin = model.known_origin
    path = require_suffix(path)
    about = {
        "name": name or origin.name,
        "num_classes": int(origin.num_classes),
        "options": origin.options,
        "classes": list(class_names or model.class_names),
        "preprocessing": dataclasses.asdict(preprocessing) if preprocessing else None,
        "version": __version__,
    }
    if len(about["classes"]) not in (0, origin.num_classes):
        raise UserError(f"{path}: {len(about['classes'])} names are given for {origin.num_classes} classes")
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
        raise SaveError(f"{path} could not be written: {error}; fix the cause or choose another path") from error
    finally:
        with contextlib.suppress(OSError):  # it would hide the first error
            part.unlink(missing_ok=True)
