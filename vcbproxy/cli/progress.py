"""How a job run shows on a terminal: a bar for each disk, a line for each step. A log gets only what went wrong."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NoReturn

from tqdm import tqdm

from jobs.watcher import Advance
from vcbproxy.cli import frame


class Terminal:
    """A watcher that draws on stderr. A terminal that goes away ends the drawing, never the job."""

    def said(self, message: str) -> None:
        """Write a line above the bars, whoever reads it."""
        with contextlib.suppress(OSError):
            tqdm.write(message, file=sys.stderr)

    def step(self, message: str) -> None:
        """Write a line for a person who watches; a log or a mail goes without."""
        if frame.on_terminal():
            self.said(message)

    def disk(self, title: str, size_bytes: int) -> AbstractContextManager[Advance]:
        """Draw a bar, on a terminal only."""
        return bar(title, size_bytes, unit="iB")


_COLUMNS_UNKNOWN = 80
_ROWS_UNKNOWN = 24


def _size_known() -> bool:
    """Whether the terminal knows its size; a serial console does not."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        return False


@contextmanager
def bar(title: str, total: int, *, unit: str) -> Iterator[Advance]:
    """Draw a bar for the length of the block.

    Args:
        title: what it stands before.
        total: how much there is to do.
        unit: ``iB`` for bytes; else things are counted.
    """
    known = _size_known()
    drawn: tqdm[NoReturn] = tqdm(
        total=total,
        desc=title,
        unit=unit,
        unit_scale=unit == "iB",
        unit_divisor=1024,
        ncols=None if known else _COLUMNS_UNKNOWN,
        nrows=None if known else _ROWS_UNKNOWN,
        dynamic_ncols=known,
        disable=not frame.on_terminal(),
    )

    def advance(done: int) -> None:
        with contextlib.suppress(OSError):
            drawn.update(done - drawn.n)

    try:
        yield advance
    finally:
        with contextlib.suppress(OSError):
            drawn.close()


@contextmanager
def stages(in_bytes: Collection[str]) -> Iterator[Callable[[str, int, int], None]]:
    """One bar for each stage of what is told to it, on a terminal only.

    Args:
        in_bytes: the stages that count bytes, not things.
    """
    with contextlib.ExitStack() as stack:
        bars: dict[str, Advance] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = stack.enter_context(bar(stage, total, unit="iB" if stage in in_bytes else ""))
            bars[stage](done)

        yield show
