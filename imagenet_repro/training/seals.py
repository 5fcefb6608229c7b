"""The seal of a checkpoint: a file with the length and the CRC-32 of every file, written once the checkpoint is good.

A seal is written when the checkpoint is complete and its arrays are listed in Orbax's database with the shapes that
were saved, so a sealed checkpoint can be restored, and damage to any of its files is found. The error of an evaluation
(`METRICS`) can be stored later than the seal, which then gets its checksum, and it is not part of the state: damage to
it makes the error unknown, and the checkpoint stays usable.
"""

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorstore

from imagenet_repro.errors import UserError
from imagenet_repro.storage import files

SEAL = "seal.json"
STATE, INFO, METRICS = "state", "info", "metrics"  # Orbax's directories of a checkpoint
METRICS_FILE = f"{METRICS}/{METRICS}"


class DamagedError(UserError):
    """A checkpoint that is incomplete or whose files have changed."""


def write(checkpoint: Path) -> None:
    """Write the seal of a complete checkpoint; raise SaveError if it cannot be written."""
    _write(checkpoint, _fingerprints(checkpoint))


def is_sealed(checkpoint: Path) -> bool:
    """Return whether a checkpoint has a seal, be it damaged."""
    return (checkpoint / SEAL).exists()


def check(checkpoint: Path) -> None:
    """Compare the files of a checkpoint with its seal; without a seal nothing is compared.

    Raises:
      DamagedError: the seal or a file is damaged; the message names it.
    """
    if not is_sealed(checkpoint):  # the run ended between the commit and the seal
        return
    actual = _fingerprints(checkpoint)
    for name, fingerprint in _read(checkpoint).items():
        if actual.get(name) != fingerprint and not name.startswith(f"{METRICS}/"):
            state = "is missing" if name not in actual else "has changed since it was written"
            raise DamagedError(f"checkpoint {checkpoint} is damaged: {name} {state}")


def check_arrays(checkpoint: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that the database of a checkpoint has the arrays of a state, every chunk of them, and readable values.

    No chunk is read, so this takes some milliseconds for a thousand arrays.

    Args:
      checkpoint: the checkpoint, at a path that tensorstore can read.
      shapes: the shape of each array by its name in the database.

    Raises:
      DamagedError: an array or a chunk is missing or has another shape, or a description cannot be read.
    """
    try:
        chunks = _stored_chunks(checkpoint / STATE)
        json.loads((checkpoint / INFO / "metadata").read_bytes())
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, RecursionError) as error:
        raise DamagedError(f"checkpoint {checkpoint} is damaged: {error}") from error
    for name, shape in shapes.items():
        stored, expected_chunks, n_chunks = chunks.get(name, ((), 0, -1))
        if stored != shape or n_chunks != expected_chunks:
            raise DamagedError(f"checkpoint {checkpoint} is damaged: the array {name} {list(shape)} is not complete")


def top1_error(checkpoint: Path) -> float | None:
    """Return the top-1 error of the evaluation of a checkpoint, in [0, 1]; None if there was no evaluation.

    Raises:
      DamagedError: the file of the error is damaged; the message names it.
    """
    path = checkpoint / METRICS_FILE
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DamagedError(f"{path} cannot be read ({error.strerror})") from error
    try:
        error = json.loads(content)["top1_error"]
        is_good = isinstance(error, int | float) and 0 <= error <= 1 and _matches(checkpoint, content)
    except (ValueError, KeyError, TypeError, RecursionError):
        is_good = False
    if not is_good:
        raise DamagedError(f"{path} is damaged")
    return error


def write_error(checkpoint: Path, top1_error: float) -> None:
    """Store the top-1 error of a checkpoint that was saved before it was evaluated; raise SaveError if that fails.

    The seal gets the checksum first. If the process is killed in between, the error counts as unknown.
    """
    content = json.dumps({"top1_error": top1_error}).encode()
    if is_sealed(checkpoint):
        _write(checkpoint, _read(checkpoint) | {METRICS_FILE: [len(content), zlib.crc32(content)]})
    with files.atomic_write(checkpoint / METRICS_FILE, "the error of a checkpoint") as file:
        file.write(content)


def _matches(checkpoint: Path, content: bytes) -> bool:
    """Return whether the content of METRICS_FILE is the one that was sealed, as far as there is a seal."""
    try:
        sealed = _read(checkpoint).get(METRICS_FILE) if is_sealed(checkpoint) else None
    except DamagedError:
        sealed = None
    return sealed is None or sealed == [len(content), zlib.crc32(content)]


def _read(checkpoint: Path) -> dict[str, list[int]]:
    path = checkpoint / SEAL
    try:
        seal = json.loads(path.read_bytes())
    except OSError as error:
        raise DamagedError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged") from error
    if not isinstance(seal, dict) or not seal:
        raise DamagedError(f"{path} is damaged")
    return seal


def _write(checkpoint: Path, fingerprints: dict[str, list[int]]) -> None:
    with files.atomic_write(checkpoint / SEAL, "the seal of a checkpoint") as file:
        file.write(json.dumps(fingerprints, indent=1).encode())


def _fingerprints(checkpoint: Path) -> dict[str, list[int]]:
    """Return the length and the CRC-32 of every file of a checkpoint except the seal and partial files."""
    paths = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    return {
        str(path.relative_to(checkpoint)): [path.stat().st_size, _crc(path)]
        for path in paths
        if path.name != SEAL and path.suffix != files.PART
    }


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return crc


def _stored_chunks(state: Path) -> dict[str, tuple[tuple[int, ...], int, int]]:
    """Return the shape, the number of chunks that it needs and the number of chunks stored, of each array by name.

    Orbax writes the arrays in Zarr's format, version 2, into one OCDBT database: `NAME/.zarray` describes an array,
    `NAME/0.1` is a chunk.
    """
    base: Any = {"driver": "file", "path": f"{state}/"}
    database = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    counts: dict[str, int] = {}
    descriptions = {}
    for key in database.list().result():
        name, _, part = key.decode().rpartition("/")
        if part == ".zarray":
            descriptions[name] = database.read(key)
        else:
            counts[name] = counts.get(name, 0) + 1
    chunks = {}
    for name, reading in descriptions.items():
        described = json.loads(reading.result().value)
        shape = tuple(described["shape"])
        needed = math.prod(-(-size // chunk) for size, chunk in zip(shape, described["chunks"], strict=True))
        chunks[name] = shape, needed, counts.get(name, 0)
    return chunks
