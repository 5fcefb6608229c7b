"""JSON files that this project writes and reads back."""

import json
from pathlib import Path
from typing import Any

from imagenet_repro.errors import UserError
from imagenet_repro.storage import files


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, completely or not at all.

    Raises:
      SaveError: the file cannot be written.
    """
    with files.atomic_write(path, "JSON") as file:
        file.write(json.dumps(value, indent=1).encode() + b"\n")


def read_json(path: Path, origin: str, advice: str = "") -> Any:
    """Return the value in a JSON file.

    Args:
      path: the file.
      origin: a clause that names the command that writes the file, such as "train writes it", for the message about a
        missing file.
      advice: what to do about a damaged file, for the message.

    Raises:
      UserError: the file is missing, unreadable or damaged.
    """
    try:
        return json.loads(path.read_bytes().decode())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"there is no {path}; {origin}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error})" + (f"; {advice}" if advice else "")) from error


def require_keys(path: Path, value: Any, types: dict[str, Any], command: str = "train", advice: str = "") -> None:
    """Check that the value of a file has keys of certain types.

    Args:
      path: the file, for the message.
      value: the value read from it.
      types: the type, or the union of types, by dotted key. A boolean is never accepted.
      command: the command that writes the file, for the message.
      advice: what to do about a damaged file, for the message.

    Raises:
      UserError: a key is missing or has another type; the message names the first such key.
    """
    for key, expected in types.items():
        element = value
        for part in key.split("."):
            element = element.get(part) if isinstance(element, dict) else None
        if not isinstance(element, expected) or isinstance(element, bool):
            problem = "missing" if element is None else repr(element)
            message = f"{path} is not what {command} writes: '{key}' is {problem}"
            raise UserError(message + (f"; {advice}" if advice else ""))
