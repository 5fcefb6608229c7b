"""Compilation ahead of measurements, in several threads."""

import concurrent.futures
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from benchmarks.device_parts.results import Results


class Compiler:
    """Threads that compile lowered steps: as many as the process may use cores, less two for Python and the device.

    Args:
      results: where the time of each compilation is recorded.
    """

    def __init__(self, results: Results):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.threads = max(1, cores - 2)
        self._pool = ThreadPoolExecutor(self.threads, "compile")
        self._results = results
        self._pending: set[Future] = set()

    def submit(self, name: str, lowered: Any, options: dict[str, Any] | None) -> "Future[Any]":
        """Compile a lowered step in a thread; the future's result is the compiled step."""
        return self.submit_variants(lowered, {name: options})[name]

    def submit_variants(self, lowered: Any, variants: dict[str, dict[str, Any] | None]) -> "dict[str, Future[Any]]":
        """Compile a lowered step with different options, by name, in one thread; return a future for each.

        They are not compiled at the same time: they share an MLIR context, which JAX makes without locks.
        """
        futures: dict[str, Future[Any]] = {name: Future() for name in variants}
        self._pending |= set(futures.values())
        self._pool.submit(self._compile_variants, lowered, variants, futures)
        return futures

    def _compile_variants(
        self, lowered: Any, variants: dict[str, dict[str, Any] | None], futures: "dict[str, Future[Any]]"
    ) -> None:
        for name, options in variants.items():
            try:
                futures[name].set_result(self._compile(name, lowered, options))
            except BaseException as error:  # raised where the result is needed
                futures[name].set_exception(error)

    def _compile(self, name: str, lowered: Any, options: dict[str, Any] | None) -> Any:
        began = time.perf_counter()
        compiled = lowered.compile(compiler_options=options)
        self._results.write("compiled", program=name, seconds=round(time.perf_counter() - began, 2))
        return compiled

    def wait(self, seconds: float) -> None:
        """Return when nothing is being compiled; raise TimeoutError after `seconds`."""
        _, running = concurrent.futures.wait(self._pending, timeout=max(0.0, seconds))
        self._pending = running
        if running:
            raise TimeoutError(f"{len(running)} programs were still being compiled")

    def close(self) -> bool:
        """Drop the programs whose compilation has not begun; return whether others are still being compiled."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        return any(not future.done() for future in self._pending)
