"""Iterators that own threads or processes, closed when the program ends.

A program may leave such an iterator suspended, for example on an error. It is closed here while the interpreter still
works; later, Grain's own cleanup fails with a traceback.
"""

import atexit
import contextlib
import weakref
from collections.abc import Generator, Iterable
from typing import TypeVar

GeneratorT = TypeVar("GeneratorT", bound=Generator)

_open: weakref.WeakSet = weakref.WeakSet()


def close_at_exit(generator: GeneratorT) -> GeneratorT:
    """Return the generator, which is closed at the end of the program if nothing closed it before."""
    # What is registered last runs first: before the cleanup of Grain, which may have been imported just now.
    atexit.unregister(_close_open)
    atexit.register(_close_open)
    _open.add(generator)
    return generator


def hand_over(iterators: Iterable[object]) -> None:
    """Leave the closing of iterators to their consumer."""
    for iterator in iterators:
        _open.discard(iterator)


def _close_open() -> None:
    for generator in list(_open):
        with contextlib.suppress(ValueError):  # a thread is inside it
            generator.close()
