"""Files that are there whole or not at all, whatever happens while they are written."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from imagenet_repro.errors import SaveError


@contextlib.contextmanager
def whole(path: Path, what: str) -> Iterator[BinaryIO]:
    """A file open for writing, put in the place of `path` once the block has ended; an older one survives a failure.

    The directory is made where it is missing.

    Raises:
      SaveError: it cannot be written (disk full, read-only); the message names `what` and the path.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise SaveError(f"could not write {what} to {path}: {error.strerror or error}") from error
    finally:
        if part.parent.is_dir():
            part.unlink(missing_ok=True)
