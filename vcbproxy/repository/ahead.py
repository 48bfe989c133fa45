"""Work on a stream by several threads: results come in order, and only a few items are ever under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def results(
    pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[tuple[Item, Result]]:
    """Each item with what came of it. ``Executor.map`` would take all items at once, however many there are.

    Args:
        pool: who works.
        work: on one item; what it raises is raised here, in its turn.
        items: taken one by one.
        ahead: so many at most are under way beside the one that is waited for.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > ahead:
                first, done = waiting.popleft()
                yield first, done.result()
        while waiting:
            first, done = waiting.popleft()
            yield first, done.result()
    finally:
        for _, unwanted in waiting:
            unwanted.cancel()
