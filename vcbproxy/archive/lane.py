"""One thread's way onto tape: the cartridge that is written to now, and the next when it is full."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Self

from tape.errors import TapeError
from vcbproxy.archive.shelf import Cartridge, Shelf
from vcbproxy.archive.trouble import writing
from vcbproxy.errors import Error


class TapeLane:
    """A drive for the length of a ``with``; one cartridge stays in it for as many restore points as find room."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._held: tuple[AbstractContextManager[Cartridge], Cartridge] | None = None

    @property
    def cartridge(self) -> Cartridge:
        """The one that is written to; the next, if the one before was full.

        Raises:
            CartridgeWanted: the pool has none left.
            Busy: every drive is taken.
            TargetError: it cannot be loaded or mounted.
        """
        if self._held is None:
            with writing():
                manager = self._shelf.for_writing()
                self._held = manager, manager.__enter__()
        return self._held[1]

    @property
    def loaded(self) -> bool:
        """Whether there is a cartridge that is written to now."""
        return self._held is not None

    @property
    def pool(self) -> str:
        """Whose cartridges these are."""
        return self._shelf.pool

    def leave(self) -> None:
        """Commit the cartridge and let it go.

        Raises:
            TargetError: it could not be committed.
        """
        held, self._held = self._held, None
        if held is not None:
            with writing():
                held[0].__exit__(None, None, None)

    def give_up(self, error: Error) -> None:
        """The cartridge does not take any more: let it go as one that failed. What was committed on it, stays."""
        held, self._held = self._held, None
        if held is not None:
            with suppress(Error, TapeError):  # ``error`` is what is told
                held[0].__exit__(type(error), error, error.__traceback__)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        held, self._held = self._held, None
        if held is not None:
            with writing():
                held[0].__exit__(kind, error, trace)
