"""Who is told how a job run goes. Jobs tell, and never know whether anyone listens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Advance = Callable[[int], None]
"""Called with the number of bytes that are done in all."""


class Watcher(Protocol):
    """A terminal, a log, a test."""

    def said(self, message: str) -> None:
        """Something went wrong, or otherwise than asked for: whoever reads the log in the morning must see it."""

    def step(self, message: str) -> None:
        """The job goes on to its next step: of interest only to a person who watches."""

    def disk(self, title: str, size_bytes: int) -> AbstractContextManager[Advance]:
        """A disk begins; the callable tells how far it is until the block ends."""


class Nobody:
    """Nobody listens."""

    def said(self, message: str) -> None:
        """Drop it."""

    def step(self, message: str) -> None:
        """Drop it."""

    def disk(self, title: str, size_bytes: int) -> AbstractContextManager[Advance]:
        """Drop all of it."""
        return nullcontext(lambda _done: None)
