"""Where a number comes from: code, versions, devices."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from imagenet_repro import __version__
from imagenet_repro.errors import UserError

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tensorflow-datasets",
    "grain",
    "numpy",
    "opencv-python-headless",
    "pillow",
)


def collect() -> dict[str, Any]:
    """JSON values: `imagenet_repro` (version), `commit`, `python`, `packages`, `devices`, `processes`, `cores`."""
    import jax

    kinds = Counter(device.device_kind for device in jax.devices())
    return {
        "imagenet_repro": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": {"platform": jax.default_backend(), **kinds},
        "processes": jax.process_count(),
        "cores": os.cpu_count(),
    }


def of_file(path: str | Path) -> dict[str, str]:
    """`path` and `sha256` of a file. Raises UserError where it cannot be read."""
    try:
        with Path(path).expanduser().open("rb") as file:
            return {"path": str(path), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def commit() -> str:
    """The commit of the working copy that the package lies in, with "+changes" where files differ from it."""
    root = Path(__file__).parents[2]
    try:
        head = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+changes" if changes else "")


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return result.stdout.strip()
