"""Set-up of all tests: eight host devices, and the annotations of shapes checked on every call."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

from tests import typechecker

# Most of the time goes into compiling, which LLVM's first level does in half of it. Runs that tests start as programs
# (runs.py) compile as users' do.
FLAGS = " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=1"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + FLAGS
os.environ.setdefault("JAX_PLATFORMS", "cpu")
install_import_hook("imagenet_repro", f"{typechecker.__name__}.check")

REPOSITORY = Path(__file__).parent.parent


def shared_path(relative: str) -> Path:
    """Test material beside the repository; the test is skipped where it is absent."""
    path = REPOSITORY.parent / "shared" / relative
    if not path.exists():
        pytest.skip(f"needs shared/{relative} beside the repository")
    return path
