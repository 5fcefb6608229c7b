"""The provenance of a result: code, versions and devices."""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from imagenet_repro import __version__
from imagenet_repro.errors import UserError
from imagenet_repro.storage import user

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
    """Return the provenance of a result of this process, as JSON values.

    Returns:
      `imagenet_repro` (version), `commit`, `python` (version), `packages` (versions by name of those that are
      installed), `devices` (the platform and the number of devices of each kind), `processes`, and `cores` (of the
      machine).
    """
    import jax

    kinds = Counter(device.device_kind for device in jax.devices())
    return {
        "imagenet_repro": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": installed(PACKAGES),
        "devices": {"platform": jax.default_backend(), **kinds},
        "processes": jax.process_count(),
        "cores": os.cpu_count(),
    }


def installed(names: Iterable[str]) -> dict[str, str]:
    """Return the version of each distribution that is installed, by its name."""
    versions = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def of_file(path: str | Path) -> dict[str, str]:
    """Return `path` and `sha256` of a file; raise UserError if it cannot be read."""
    try:
        with user.expand(path).open("rb") as file:
            return {"path": str(path), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def commit() -> str:
    """Return the commit of the clone that contains the package, with "+changes" if tracked files differ from it.

    It is "unknown" outside a clone.
    """
    root = Path(__file__).parents[2]
    try:
        head = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+changes" if changes else "")


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, encoding="utf-8", errors="replace", check=True
    )
    return result.stdout.strip()
