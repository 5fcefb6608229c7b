"""Results of a pool of workers in the order of their inputs, with a bounded number of results waiting."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import Any


def map_in_order(executor: Executor, function: Callable, items: Iterable, ahead: int) -> Iterator[Any]:
    """Return the results of `function` on `items`, in order; at most `ahead` are computed before they are needed.

    `Executor.map` would submit every item at once and hold every result.
    """
    pending = deque()
    for item in items:
        pending.append(executor.submit(function, item))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
