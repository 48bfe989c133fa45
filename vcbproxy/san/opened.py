"""The LUNs that one command has open: each is opened once, however many parts of the command look at it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from vcbproxy.san.info import LunInfo
from vcbproxy.san.lun import Lun, open_lun
from vcbproxy.san.patience import DEFAULT_TIMEOUT_S, Patience


def _told(info: LunInfo) -> str:
    """What messages call it: a map may be called mpatha, and on the array nobody knows that name."""
    known = not info.wwn or info.wwn in info.name.lower()
    return info.name if known else f"{info.name} ({info.canonical_name})"


class OpenLuns:
    """Opens LUNs when they are first asked for, from any thread, and closes them at the end of the ``with``.

    Args:
        read_timeout_s: how long each may take to answer.
    """

    def __init__(self, read_timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self.patience = Patience(read_timeout_s)
        self._luns: dict[str, Lun] = {}

    def get(self, info: LunInfo) -> Lun:
        """The LUN, open; it is not the caller's to close.

        Raises:
            CannotOpen: it cannot be opened. It will be tried again.
        """
        if info.path not in self._luns:
            self._luns[info.path] = open_lun(info.path, name=_told(info), patience=self.patience)
        return self._luns[info.path]

    def close(self) -> None:
        """Close all; a second time does nothing."""
        luns, self._luns = self._luns, {}
        for lun in luns.values():
            lun.close()
        self.patience.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
