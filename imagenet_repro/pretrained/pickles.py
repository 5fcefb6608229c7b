"""Reads the tensors of files that `torch.save` wrote, without PyTorch and without running what a file asks for.

A `.pth` file is a pickle, and a pickle is a program: it may name any function and call it. The unpickler here resolves
the dozen names that tensors are made of, to functions of its own, and refuses every other name before anything is
called. A tensor is described by the pickle (storage, offset, size, strides) and its numbers lie outside of it: as
members of a zip archive since PyTorch 1.6, one after the other behind the pickle before that. They are mapped into
memory, not read, and a tensor that reaches beyond its storage is refused.
"""

import collections
import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from imagenet_repro.errors import UserError

_DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # what torch.save pickled first until PyTorch 1.6
_LINE = 2**16  # bytes of a text operation at most
_EXPANDED = 2**24  # numbers in one expanded tensor at most, so that a small file cannot ask for all memory
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip member: lengths of its name and of its extra field


# A pickle may set attributes of what it has built, even those of a frozen dataclass. A tuple has none to set, and
# neither have the callables below.
class _Storage(NamedTuple):
    """A run of numbers outside the pickle."""

    dtype: np.dtype
    key: str
    numel: int


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides count elements."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _RebuildTensor:
    __slots__ = ()

    def __call__(self, storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> _Tensor:
        size, stride = tuple(size), tuple(stride)
        numbers = all(isinstance(number, int) and number >= 0 for number in (offset, *size, *stride))
        if not isinstance(storage, _Storage) or not numbers or len(size) != len(stride):
            raise pickle.UnpicklingError("a tensor is not described as PyTorch does")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        count = math.prod(size)  # an expanded tensor shows the same numbers again: it has more than its storage
        if (count and last >= storage.numel) or count > max(storage.numel, _EXPANDED):
            raise pickle.UnpicklingError(f"a tensor of size {size} reaches beyond its storage '{storage.key}'")
        return _Tensor(storage, offset, size, stride)


class _RebuildParameter:
    __slots__ = ()

    def __call__(self, tensor: Any, *_: Any) -> Any:
        return tensor


class _Size:
    __slots__ = ()

    def __call__(self, numbers: tuple[int, ...] = ()) -> tuple[int, ...]:
        return tuple(numbers)


_ALLOWED: dict[tuple[str, str], Callable] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): _Size(),
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
}


class _Unpickler(pickle.Unpickler):
    """Builds containers, numbers, texts and descriptions of tensors, and nothing else."""

    def __init__(self, file: io.BufferedIOBase, path: Path):
        super().__init__(file, encoding="utf-8")
        self._path = path
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The pickle names a global. Raises UserError unless it is one that tensors are made of."""
        if module == "torch" and name in _DTYPES:
            return name
        if (module, name) not in _ALLOWED:
            raise UserError(
                f"{self._path} was not read: unpickling it would call '{module}.{name}', which is no part of a tensor,"
                " and such a file can run any code. Files of whole models or of a training state are like that: where"
                " you trust it, save its state_dict alone with PyTorch, as .safetensors or with torch.save"
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        """The pickle names a storage: ("storage", type, key, device, length, …)."""
        kind, dtype, key, _, numel, *view = pid
        usual = kind == "storage" and dtype in _DTYPES and isinstance(numel, int) and numel >= 0
        if not usual or any(view):
            raise pickle.UnpicklingError(f"a storage is not described as PyTorch does: {pid!r}")
        return self.storages.setdefault(str(key), _Storage(np.dtype(_DTYPES[dtype]), str(key), numel))


class _Bounded:
    """A file of which no more is asked than it has, before any room is made for it."""

    def __init__(self, file: io.BufferedIOBase):
        self._file, start = file, file.tell()
        self._end = file.seek(0, io.SEEK_END)
        file.seek(start)

    def read(self, count: int) -> bytes:
        if count > self._end - self._file.tell():
            raise pickle.UnpicklingError(f"{count:,} bytes are announced that are not there")
        return self._file.read(count)

    def readline(self) -> bytes:
        return self._file.readline(_LINE)

    def tell(self) -> int:
        return self._file.tell()


def _load(file: io.BufferedIOBase, path: Path) -> tuple[Any, dict[str, _Storage]]:
    """The value of the next pickle in a file, and the storages that it names; the file is then behind it.

    Python's unpickler makes room for as many entries as a memo's index or a text's length says. The operations are
    gone through first, without doing any, so that a file can ask for no more than its own size.
    """
    start = file.tell()
    for number, (operation, argument, _) in enumerate(pickletools.genops(_Bounded(file))):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= argument <= number:
            raise pickle.UnpicklingError(f"its memo begins at {argument:,}")
    end = file.tell()
    file.seek(start)
    unpickler = _Unpickler(io.BytesIO(file.read(end - start)), path)
    return unpickler.load(), unpickler.storages


def read_zip(path: Path) -> Any:
    """What `torch.save` wrote since PyTorch 1.6, its tensors as read-only arrays over the file.

    Raises:
      UserError: the pickle names anything but the parts of tensors.
      zipfile.BadZipFile, pickle.UnpicklingError and other errors of a damaged file.
    """
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        _check_stored(members["data.pkl"])
        value, storages = _load(io.BytesIO(archive.read(members["data.pkl"])), path)
        big = "byteorder" in members and archive.read(members["byteorder"]) == b"big"
    arrays = {}
    with path.open("rb") as file:
        for key, storage in storages.items():
            info = members[f"data/{key}"]
            _check_stored(info)
            if info.file_size < storage.numel * storage.dtype.itemsize:
                raise pickle.UnpicklingError(f"storage '{key}' holds too few numbers")
            file.seek(info.header_offset)
            start = info.header_offset + 30 + sum(_LOCAL_HEADER.unpack(file.read(30)))
            arrays[key] = _map(path, storage, start, big)
    return _arrays(value, arrays)


def _check_stored(info: zipfile.ZipInfo) -> None:
    if info.compress_type != zipfile.ZIP_STORED:
        raise pickle.UnpicklingError(f"'{info.filename}' is compressed, which PyTorch never does")


def read_legacy(path: Path) -> Any:
    """What `torch.save` wrote before PyTorch 1.6; otherwise as `read_zip`."""
    with path.open("rb") as file:
        magic, _, system = (_load(file, path)[0] for _ in range(3))
        if magic != _LEGACY_MAGIC:
            raise pickle.UnpicklingError("it is a pickle, but not one of torch.save")
        value, storages = _load(file, path)
        keys, _ = _load(file, path)
        big = not system["little_endian"]
        arrays = {}
        for key in map(str, keys):
            storage = storages[key]
            (numel,) = struct.unpack(">q" if big else "<q", file.read(8))
            if numel != storage.numel:
                raise pickle.UnpicklingError(f"storage '{key}' holds {numel} numbers, not {storage.numel}")
            arrays[key] = _map(path, storage, file.tell(), big)
            file.seek(numel * storage.dtype.itemsize, io.SEEK_CUR)
    return _arrays(value, arrays)


def _map(path: Path, storage: _Storage, start: int, big: bool) -> np.ndarray:
    """The numbers of a storage, mapped; ValueError where the file ends before them."""
    if not storage.numel:
        return np.zeros((0,), storage.dtype)
    if big and storage.dtype == ml_dtypes.bfloat16:
        raise pickle.UnpicklingError("bfloat16 numbers of a big-endian machine")
    dtype = storage.dtype.newbyteorder(">") if big else storage.dtype
    return np.memmap(path, np.uint8, "r", start, (storage.numel * dtype.itemsize,)).view(dtype)


def _arrays(value: Any, storages: dict[str, np.ndarray]) -> Any:
    """`value` with an array for each tensor in its dictionaries."""
    if isinstance(value, _Tensor):
        data = storages[value.storage.key]
        strides = tuple(step * data.itemsize for step in value.stride)
        view = np.lib.stride_tricks.as_strided(data[value.offset :], value.size, strides, writeable=False)
        return np.asarray(view)
    if isinstance(value, Mapping):
        return {key: _arrays(entry, storages) for key, entry in value.items()}
    return value
