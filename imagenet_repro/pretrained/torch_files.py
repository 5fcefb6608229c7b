"""Read the tensors of files that PyTorch wrote, without PyTorch and without running code from the file.

A file of `torch.save` or `torch.jit.save` is a pickle, which `pickles` interprets as data. The pickle describes a
tensor (storage, offset, size, strides); the numbers are outside of it, since PyTorch 1.6 as members of a zip archive,
before that one after the other behind the pickle. They are mapped into memory rather than read. A tensor that reaches
beyond its storage is an error.
"""

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from imagenet_repro.pretrained import pickles
from imagenet_repro.pretrained.pickles import Content, Module, Storage, Tensor

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first value that torch.save pickled before PyTorch 1.6
_LONGEST = 512  # characters of the name of a module in a program
_LOCAL_HEADER = struct.Struct(
    "<26xHH"
)  # of a zip member: 30 bytes, which end in the lengths of its name and its extra field


def read_zip(path: Path) -> Content:
    """Return the content that `torch.save` since PyTorch 1.6 wrote, with tensors as read-only arrays over the file.

    The content of a TorchScript program (`torch.jit.save`) is a dictionary of the tensors of its modules; its code is
    not read.

    Raises:
      zipfile.BadZipFile, pickle.UnpicklingError and other errors of a damaged file.
    """
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    members = {info.filename.partition("/")[2]: info for info in infos}
    if len(members) != len(infos):
        raise zipfile.BadZipFile("two members have the same name")
    mapped = np.memmap(path, np.uint8, "r")
    if sum(info.file_size for info in infos if info.compress_type == zipfile.ZIP_STORED) > len(mapped):
        raise zipfile.BadZipFile("its members claim more bytes than the file has")
    content = pickles.load(io.BytesIO(_member(mapped, members["data.pkl"]).tobytes()))
    big = "byteorder" in members and _member(mapped, members["byteorder"]).tobytes() == b"big"
    numbers = _Numbers(big)
    for key, storage in content.storages.items():
        numbers.add(storage, _member(mapped, members[f"data/{key}"]))
    if isinstance(content.value, Module):
        return content._replace(value=_named_arrays(content.value, numbers.array), is_program=True)
    return content._replace(value=_with_arrays(content.value, numbers.array))


def _named_arrays(program: Module, array: Callable[[Tensor], np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays of a program's modules by their names, joined by dots."""
    arrays: dict[str, np.ndarray] = {}
    seen, waiting = {id(program)}, [("", program)]
    while waiting:
        prefix, module = waiting.pop()
        for name, entry in module.items():
            if isinstance(entry, Tensor):
                arrays[f"{prefix}{name}"] = array(entry)
            elif isinstance(entry, Module):
                if id(entry) in seen or len(prefix) > _LONGEST:
                    raise pickle.UnpicklingError(f"its module '{prefix[:40]}{str(name)[:40]}' has two places")
                seen.add(id(entry))
                waiting.append((f"{prefix}{name}.", entry))
    return arrays


def _member(mapped: np.ndarray, info: zipfile.ZipInfo) -> np.ndarray:
    """Return the bytes of a member of an archive that is mapped into memory.

    PyTorch writes a checksum of 0 where it was told to write none (`torch.serialization.set_crc32_options`).
    """
    if info.compress_type != zipfile.ZIP_STORED:
        raise zipfile.BadZipFile(f"'{info.filename}' is compressed, which PyTorch never does")
    header = mapped[info.header_offset :][: _LOCAL_HEADER.size].tobytes()
    start = info.header_offset + _LOCAL_HEADER.size + sum(_LOCAL_HEADER.unpack(header))
    content = mapped[start : start + info.file_size]
    if len(content) != info.file_size:
        raise zipfile.BadZipFile(f"the file ends before the {info.file_size:,} bytes of '{info.filename}'")
    if info.CRC and zlib.crc32(content.data) != info.CRC:
        raise zipfile.BadZipFile(f"'{info.filename}' does not have its checksum")
    return content


def read_legacy(path: Path) -> Content:
    """Return the content that `torch.save` before PyTorch 1.6 wrote, otherwise as `read_zip`."""
    with path.open("rb") as file:
        magic, _, system = (pickles.load(file).value for _ in range(3))
        if magic != _LEGACY_MAGIC:
            raise pickle.UnpicklingError("it is a pickle, but not one of torch.save")
        content = pickles.load(file)
        if not content.storages:
            return content
        keys = pickles.load(file).value
        big = not system["little_endian"]
        numbers, mapped = _Numbers(big), np.memmap(path, np.uint8, "r")
        for key in map(_text, keys):
            storage = content.storages[key]
            (numel,) = struct.unpack(">q" if big else "<q", file.read(8))
            if numel != storage.numel:
                raise pickle.UnpicklingError(f"storage '{key}' holds {numel} numbers, not {storage.numel}")
            numbers.add(storage, mapped[file.tell() :])
            file.seek(numel * storage.dtype.itemsize, io.SEEK_CUR)
    return content._replace(value=_with_arrays(content.value, numbers.array))


def _text(key: Any) -> str:
    if not isinstance(key, str | int):
        raise pickle.UnpicklingError("the key of a storage is no text")
    return str(key)


class _Numbers:
    """The storages of a file. They are parts of one map of it, since a process may hold only some 65,000 maps."""

    def __init__(self, big: bool):
        self._big = big
        self._storages: dict[str, np.ndarray] = {}

    def add(self, storage: Storage, content: np.ndarray) -> None:
        """Add a storage whose numbers are the first bytes of `content`; an error where there are too few."""
        n_bytes = storage.numel * storage.dtype.itemsize
        if n_bytes > len(content):
            raise pickle.UnpicklingError(f"storage '{storage.key}' holds too few numbers")
        if self._big and storage.dtype == ml_dtypes.bfloat16:
            raise pickle.UnpicklingError("bfloat16 numbers of a big-endian machine")
        dtype = storage.dtype.newbyteorder(">") if self._big else storage.dtype
        self._storages[storage.key] = content[:n_bytes].view(dtype)

    def array(self, tensor: Tensor) -> np.ndarray:
        """Return the numbers of a tensor as a read-only view."""
        data = self._storages[tensor.storage.key]
        strides = tuple(step * data.itemsize for step in tensor.stride)
        view = np.lib.stride_tricks.as_strided(data[tensor.offset :], tensor.size, strides, writeable=False)
        return np.asarray(view)


def _with_arrays(value: Any, array: Callable[[Tensor], np.ndarray]) -> Any:
    """Return `value` with an array in place of each tensor in its dictionaries.

    Each dictionary and each tensor is visited once, since a few that are shared may be in a file a billion times, and
    a dictionary may have itself as a part.
    """
    if isinstance(value, Tensor):
        return array(value)
    if not isinstance(value, Mapping):
        return value
    results: dict[int, Any] = {id(value): {}}
    waiting: list[Mapping[Any, Any]] = [value]
    while waiting:
        source = waiting.pop()
        target = results[id(source)]
        for key, entry in source.items():
            if isinstance(entry, Tensor | Mapping) and id(entry) not in results:
                results[id(entry)] = array(entry) if isinstance(entry, Tensor) else {}
                if isinstance(entry, Mapping):
                    waiting.append(entry)
            target[key] = results.get(id(entry), entry)
    return results[id(value)]
