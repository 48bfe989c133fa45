"""How a job run shows on a terminal: bars for disks, lines for what a person should know. Elsewhere only the lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from tqdm import tqdm

from jobs.watcher import Advance
from vcbproxy.cli import frame


class Terminal:
    """A watcher that draws on stderr."""

    def said(self, message: str) -> None:
        """Write a line above the bars."""
        tqdm.write(message, file=sys.stderr)

    def disk(self, title: str, size_bytes: int) -> AbstractContextManager[Advance]:
        """Draw a bar, on a terminal only."""
        return _bar(title, size_bytes)


@contextmanager
def _bar(title: str, size_bytes: int) -> Iterator[Advance]:
    with tqdm(
        total=size_bytes, desc=title, unit="B", unit_scale=True, unit_divisor=1024, disable=not frame.on_terminal()
    ) as bar:

        def advance(done: int) -> None:
            bar.update(done - bar.n)

        yield advance
