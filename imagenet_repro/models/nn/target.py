"""The platform that a network is compiled for.

It is the platform of this process's devices, except while a step is compiled for devices that are not here
(`main.py plan`). Some layers have a form of their own for each platform and choose it while they are traced.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import TypeVar

import jax
from jax import lax

Tree = TypeVar("Tree")

_PLATFORM: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


def platform() -> str:
    """Return "cpu", "gpu" or "tpu": the platform that what is traced now will run on."""
    return _PLATFORM.get() or jax.default_backend()


@contextlib.contextmanager
def compile_for(name: str) -> Iterator[None]:
    """Trace for the platform `name` ("cpu", "gpu" or "tpu") inside the context, whatever devices are here."""
    token = _PLATFORM.set(name)
    try:
        yield
    finally:
        _PLATFORM.reset(token)


def in_memory(arrays: Tree) -> Tree:
    """Return `arrays` as they are in an accelerator's memory, so that what follows reads them.

    XLA otherwise traces a value back to what it was computed from, and reads or even stores that instead. On the CPU
    nothing changes.
    """
    return arrays if platform() == "cpu" else lax.optimization_barrier(arrays)
