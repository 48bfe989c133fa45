"""Trying again what failed in passing: a storage that restarts, a line that drops, a server that asks for patience.

    attempt ─ Unavailable ─▶ wait ─▶ attempt ─ Unavailable ─▶ wait, longer ─▶ …    until it works or ``limit_s`` is over

Only ``Unavailable`` is tried again: the backend says by that error that the same may work later. Everything else (a
file that is missing or damaged, a full disk, a refusal) would be the same the next time, and is raised at once.

After ``Unavailable`` nobody knows whether the storage did what it was asked. So the second attempt of a removal may
find the file gone, and that of a single file may find it there: with our bytes it was us, with others it was not.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from vcbproxy.clock import Clock
from vcbproxy.errors import TargetError
from vcbproxy.repository.backend.around import Around
from vcbproxy.repository.backend.base import (
    Backend,
    FileExists,
    FileKind,
    FileMissing,
    FileName,
    Keeping,
    Retaining,
    Stored,
    Traits,
    Unavailable,
    load_all,
)
from vcbproxy.repository.ids import Buffer

Result = TypeVar("Result")

_NAP_S = 0.25  # how soon an interruption is seen
_SEEN_BYTES = 16  # of a name: enough that no two are alike
_log = logging.getLogger(__name__)


def never() -> bool:
    """Nobody interrupts."""
    return False


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one operation is tried again.

    Attributes:
        limit_s: for all attempts together. A lock that could not be refreshed is given up after 22.5 minutes, and
            others may take it for stale after 30: what is begun just before the one must end before the other.
        first_s: the first wait at most; each further one may be twice as long.
        longest_s: no wait is longer, unless the storage asks for it.
        unreached_s: instead of ``limit_s`` as long as there was no answer yet; for someone who waits at a terminal, and
            may have mistyped the place. None for no difference.
    """

    limit_s: float = 300
    first_s: float = 0.5
    longest_s: float = 30
    unreached_s: float | None = None


class RetryingBackend(Around):
    """A backend with patience."""

    def __init__(
        self,
        inner: Backend,
        clock: Clock,
        chance: random.Random,
        patience: Patience | None = None,
        interrupted: Callable[[], bool] = never,
    ) -> None:
        """Wrap ``inner``.

        Args:
            inner: which fails in passing.
            clock: to wait by.
            chance: spreads the waits, so that many who failed together do not come back together.
            patience: how much.
            interrupted: once true nothing is tried again.
        """
        super().__init__(inner)
        self._clock = clock
        self._chance = chance
        self._patience = patience or Patience()
        self._interrupted = interrupted
        self._reached = False

    @property
    def traits(self) -> Traits:
        """The wrapped backend's; its locks against removal are set as patiently."""
        traits = self._inner.traits
        if traits.retaining is None:
            return traits
        return replace(traits, retaining=_PatientRetaining(traits.retaining, self._tried))

    def create(self) -> None:
        """Make what is needed; making it twice is harmless."""
        self._tried(lambda _: self._inner.create())

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        """Keep a file. A content-named one may be kept twice; a single one that is there after all is looked into."""

        def attempt(number: int) -> None:
            try:
                self._inner.save(name, parts)
            except FileExists:
                if not number or not self._keeps(name, b"".join(parts)):
                    raise

        self._tried(attempt)

    def load(self, name: FileName, offset: int, buf: memoryview) -> None:
        """Fill ``buf``, from its beginning each time."""
        self._tried(lambda _: self._inner.load(name, offset, buf))

    def size(self, name: FileName) -> int:
        """Ask until there is an answer."""
        return self._tried(lambda _: self._inner.size(name))

    def list(self, kind: FileKind) -> Iterator[Stored]:
        """List; when it breaks off it begins anew and passes over what was given already."""
        given = bytearray()
        began_s = self._clock.monotonic()
        for number in itertools.count():
            try:
                yield from self._listed(kind, given)
            except Unavailable as error:
                self._rest(error, number, began_s)
            else:
                self._reached = True
                return

    def remove(self, name: FileName) -> None:
        """Remove a file; gone at a second attempt, it was us who removed it."""

        def attempt(number: int) -> None:
            try:
                self._inner.remove(name)
            except FileMissing:
                if not number:
                    raise

        self._tried(attempt)

    def _keeps(self, name: FileName, content: bytes) -> bool:
        """Whether just these bytes are stored."""
        return self._inner.size(name) == len(content) and load_all(self._inner, name, len(content)) == content

    def _listed(self, kind: FileKind, given: bytearray) -> Iterator[Stored]:
        before = {bytes(given[at : at + _SEEN_BYTES]) for at in range(0, len(given), _SEEN_BYTES)}
        for stored in self._inner.list(kind):
            mark = bytes.fromhex(stored.name.stem)[:_SEEN_BYTES].ljust(_SEEN_BYTES, b"\0")
            if mark not in before:
                given += mark
                yield stored

    def _tried(self, attempt: Callable[[int], Result]) -> Result:
        """Call ``attempt`` with 0, 1, 2, … until it returns.

        Raises:
            Unavailable: the last one, once patience is over.
        """
        began_s = self._clock.monotonic()
        number = 0
        while True:
            try:
                result = attempt(number)
            except Unavailable as error:
                self._rest(error, number, began_s)
            except TargetError:
                self._reached = True  # it answered
                raise
            else:
                self._reached = True
                return result
            number += 1

    def _rest(self, error: Unavailable, number: int, began_s: float) -> None:
        """Wait before the next attempt, or raise ``error`` when there should be none."""
        delay_s = self._delay_s(error, number)
        spent_s = self._clock.monotonic() - began_s
        if spent_s + delay_s > self._limit_s or self._interrupted():
            if number:
                error.add_note(f"it was tried {number + 1} times in {spent_s:.0f} s")
            raise error
        if not number:
            _log.warning("%s; trying again, for %.0f s at most", error, self._limit_s)
        end_s = self._clock.monotonic() + delay_s
        while (left_s := end_s - self._clock.monotonic()) > 0:
            if self._interrupted():
                raise error
            self._clock.sleep(min(left_s, _NAP_S))

    @property
    def _limit_s(self) -> float:
        unreached_s = self._patience.unreached_s
        return self._patience.limit_s if self._reached or unreached_s is None else unreached_s

    def _delay_s(self, error: Unavailable, number: int) -> float:
        """A random wait, twice as long each time; not shorter than what the storage asked for (``retry_after_s``)."""
        patience = self._patience
        most_s = min(patience.longest_s, patience.first_s * 2.0 ** min(number, 30))
        asked_s = error.facts.get("retry_after_s")
        return max(
            self._chance.uniform(most_s / 4, most_s), float(asked_s) if isinstance(asked_s, int | float) else 0.0
        )


class _PatientRetaining:
    """Locks against removal, asked for until there is an answer; setting one twice is harmless."""

    def __init__(self, inner: Retaining, tried: Callable[[Callable[[int], Any]], Any]) -> None:
        self._inner = inner
        self._tried = tried

    @property
    def keeping(self) -> Keeping:
        return self._inner.keeping

    def kept_until(self, name: FileName) -> datetime | None:
        until: datetime | None = self._tried(lambda _: self._inner.kept_until(name))
        return until

    def keep_until(self, name: FileName, until: datetime) -> None:
        self._tried(lambda _: self._inner.keep_until(name, until))
