"""Work that several threads do at once, given out in the order in which it was begun.

begin(a) begin(b) begin(c)        done(b) done(a) done(c)        iterating: a, b, c
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from vcbproxy.pipeline.channel import Channel
from vcbproxy.pipeline.crew import Crew

Item = TypeVar("Item")


class InOrder(Generic[Item]):
    """Items under way; one thread begins them, any thread says that one is done, one thread takes them.

    Args:
        crew: whose end wakes everybody who waits here.
        capacity: how many may be begun and not taken; more make ``begin`` wait.
    """

    def __init__(self, crew: Crew, capacity: int) -> None:
        self._begun: Channel[tuple[Item, bool]] = crew.channel(capacity)
        self._done: Channel[Item] = crew.channel(capacity)
        self._early: set[int] = set()  # the ids of those that are done before their turn

    def begin(self, item: Item, *, is_done: bool = False) -> None:
        """The next item; ``is_done``: nobody works on it.

        Raises:
            Closed: nobody will take it.
        """
        self._begun.put((item, is_done))

    def done(self, item: Item) -> None:
        """Whoever worked on it is done.

        Raises:
            Closed: nobody will take it.
        """
        self._done.put(item)

    def close(self) -> None:
        """No more are begun."""
        self._begun.close()

    def __iter__(self) -> Iterator[Item]:
        """Take them in order, each when it is done.

        Raises:
            Closed: something went wrong elsewhere.
            Cancelled: the operator wants an end.
        """
        for item, is_done in self._begun:
            while not is_done and id(item) not in self._early:
                self._early.add(id(self._done.get()))
            self._early.discard(id(item))
            yield item
