"""Files that are written completely or not at all, even if the process is interrupted."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from imagenet_repro.errors import SaveError


@contextlib.contextmanager
def atomic_write(path: Path, content: str) -> Iterator[BinaryIO]:
    """Yield a binary file that replaces `path` when the block ends without an error.

    An older file survives a failure. The directory is created if it is missing.

    Args:
      path: the file to write.
      content: a name for the file's content, such as "predictions", for error messages.

    Raises:
      SaveError: the file cannot be written (disk full, read-only).
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
        raise SaveError(f"could not write {content} to {path}: {error.strerror or error}") from error
    finally:
        if part.parent.is_dir():
            part.unlink(missing_ok=True)
