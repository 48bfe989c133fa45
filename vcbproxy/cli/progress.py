"""Progress bars, on a terminal only; silence elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from tqdm import tqdm

from vcbproxy.cli import frame


class Bar(Protocol):
    """What shows how far a disk is."""

    def advance(self, size_bytes: int) -> None:
        """So many bytes more are done."""


class DiskBar:
    """One disk's bar, from 0 to its size in bytes."""

    def __init__(self, title: str, size_bytes: int) -> None:
        self._bar = tqdm(
            total=size_bytes,
            desc=title,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            disable=not frame.on_terminal(),
        )

    def advance(self, size_bytes: int) -> None:
        """So many bytes more are done."""
        self._bar.update(size_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
