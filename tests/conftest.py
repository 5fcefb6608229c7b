"""Set-up of all tests: eight host devices, and shape annotations that are checked on every call."""

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests import command_line, typechecker

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {command_line.xla_flags(devices=8)}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # One cache for the session, so that the processes of the tests compile a program only once.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, compiled, ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# Traced programs are many small objects; with the default thresholds, garbage collection takes a fifth of the time.
gc.set_threshold(100_000, 50, 100)
typechecker.install()

REPOSITORY = Path(__file__).parent.parent

# The test files that take longest run first, so that no process of pytest-xdist ends long after the other.
LONGEST = (
    *("test_train.py", "test_feature_run.py", "test_controller.py", "test_goldens.py", "test_counts.py"),
    *("test_dense.py", "test_parallel.py", "test_step.py", "test_reference_steps.py", "test_loop.py", "test_stack.py"),
    *("test_svm_step.py", "test_device.py", "test_human.py", "test_hosts.py", "test_queue.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the test files that take longest to the front."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def shared_path(relative: str) -> Path:
    """Return the path of test material beside the repository; skip the test if it is absent."""
    path = REPOSITORY.parent / "shared" / relative
    if not path.exists():
        pytest.skip(f"needs shared/{relative} beside the repository")
    return path
