"""Read the tensors of files that `torch.save` wrote, without PyTorch and without running code from the file.

A `.pth` file is a pickle, and a pickle is a program that may name any function and call it. Our unpickler resolves
only the dozen names that tensors need, to its own functions; any other name is an error before anything is called. The
pickle describes a tensor (storage, offset, size, strides); the numbers are outside of it, since PyTorch 1.6 as members
of a zip archive, before that one after the other behind the pickle. They are mapped into memory rather than read. A
tensor that reaches beyond its storage is an error.
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
from typing import IO, Any, NamedTuple, cast

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
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first value that torch.save pickled before PyTorch 1.6
_LINE = 2**16  # largest number of bytes of a text operation
_EXPANDED = 2**24  # largest number of entries of an expanded tensor, so that a small file cannot use all memory
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip member: the lengths of its name and of its extra field


# A pickle may set attributes of the objects that it builds, even of a frozen dataclass. A tuple has none to set, and
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
        are_counts = all(isinstance(number, int) and number >= 0 for number in (offset, *size, *stride))
        if not isinstance(storage, _Storage) or not are_counts or len(size) != len(stride):
            raise pickle.UnpicklingError("a tensor is not described as PyTorch does")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        count = math.prod(size)  # an expanded tensor repeats numbers, so it may have more than its storage
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
    """An unpickler that builds only containers, numbers, strings and descriptions of tensors."""

    def __init__(self, file: io.BufferedIOBase, path: Path):
        super().__init__(file, encoding="utf-8")
        self._path = path
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Resolve a global that the pickle names; UserError unless tensors need it."""
        if module == "torch" and name in _DTYPES:
            return name
        if (module, name) not in _ALLOWED:
            raise UserError(
                f"{self._path} was not read: unpickling it would call '{module}.{name}', which is not part of a"
                " tensor, and such a file can run any code. Files of complete models or of a training state do this:"
                " if you trust it, save its state_dict alone with PyTorch, as .safetensors or with torch.save"
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        """Resolve a storage that the pickle names by ("storage", type, key, device, length, …)."""
        kind, dtype, key, _, numel, *view = pid
        is_valid = kind == "storage" and dtype in _DTYPES and isinstance(numel, int) and numel >= 0
        if not is_valid or any(view):
            raise pickle.UnpicklingError(f"a storage is not described as PyTorch does: {pid!r}")
        return self.storages.setdefault(str(key), _Storage(np.dtype(_DTYPES[dtype]), str(key), numel))


class _Bounded:
    """A file that checks the number of requested bytes before memory is allocated for them."""

    def __init__(self, file: io.BufferedIOBase):
        self._file, start = file, file.tell()
        self._end = file.seek(0, io.SEEK_END)
        file.seek(start)

    def read(self, count: int) -> bytes:
        if count > self._end - self._file.tell():
            raise pickle.UnpicklingError(f"{count:,} bytes are announced, but the file ends before them")
        return self._file.read(count)

    def readline(self) -> bytes:
        return self._file.readline(_LINE)

    def tell(self) -> int:
        return self._file.tell()


def _load(file: io.BufferedIOBase, path: Path) -> tuple[Any, dict[str, _Storage]]:
    """Return the value of the next pickle in a file and the storages that it names; the file is then after it.

    Python's unpickler allocates the number of entries that the index of a memo or the length of a string states. So
    all operations are checked first, without performing any: a file cannot request more memory than its own size.
    """
    start = file.tell()
    for number, (operation, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], _Bounded(file)))):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= cast(int, argument) <= number:
            raise pickle.UnpicklingError(f"its memo begins at {argument:,}")
    end = file.tell()
    file.seek(start)
    unpickler = _Unpickler(io.BytesIO(file.read(end - start)), path)
    return unpickler.load(), unpickler.storages


def read_zip(path: Path) -> Any:
    """Return the value that `torch.save` since PyTorch 1.6 wrote, with tensors as read-only arrays over the file.

    Raises:
      UserError: the pickle names a global that tensors do not need.
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
    """Return the value that `torch.save` before PyTorch 1.6 wrote, otherwise as `read_zip`."""
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
    """Map the numbers of a storage into memory; ValueError where the file ends before them."""
    if not storage.numel:
        return np.zeros((0,), storage.dtype)
    if big and storage.dtype == ml_dtypes.bfloat16:
        raise pickle.UnpicklingError("bfloat16 numbers of a big-endian machine")
    dtype = storage.dtype.newbyteorder(">") if big else storage.dtype
    return np.memmap(path, np.uint8, "r", start, (storage.numel * dtype.itemsize,)).view(dtype)


def _arrays(value: Any, storages: dict[str, np.ndarray]) -> Any:
    """Return `value` with an array in place of each description of a tensor."""
    if isinstance(value, _Tensor):
        data = storages[value.storage.key]
        strides = tuple(step * data.itemsize for step in value.stride)
        view = np.lib.stride_tricks.as_strided(data[value.offset :], value.size, strides, writeable=False)
        return np.asarray(view)
    if isinstance(value, Mapping):
        return {key: _arrays(entry, storages) for key, entry in value.items()}
    return value
