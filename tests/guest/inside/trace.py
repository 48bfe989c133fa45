"""The kernel as a witness: what its block and SCSI layers were asked to do, by anyone, while a ``with`` lasted."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from tests.guest.inside.commands import call

_TRACEFS = Path("/sys/kernel/tracing")
_EVENTS = ("block/block_bio_queue", "block/block_rq_issue", "scsi/scsi_dispatch_cmd_start")
_BUFFER_KIB = 8192


class KernelTrace:
    """``text`` is what the kernel wrote down, when the ``with`` is over."""

    def __init__(self) -> None:
        self.text = ""

    def __enter__(self) -> Self:
        if not (_TRACEFS / "tracing_on").exists():
            call("mount", "-t", "tracefs", "tracefs", _TRACEFS)
        self._set("buffer_size_kb", _BUFFER_KIB)
        self._set("trace", "")
        for event in _EVENTS:
            self._set(f"events/{event}/enable", 1)
        self._set("tracing_on", 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._set("tracing_on", 0)
        for event in _EVENTS:
            self._set(f"events/{event}/enable", 0)
        self.text = (_TRACEFS / "trace").read_text("utf-8", "replace")

    def _set(self, name: str, value: object) -> None:
        (_TRACEFS / name).write_text(f"{value}\n")
