"""Faults on purpose, by seed: what a storage can do to us, at any operation, before, in the midst of, or after it.

    Order(What.LOST, When.AFTER, verbs={Verb.SAVE}, kinds={FileKind.PACK})   kept, but the answer is lost
    Order(What.FULL, after=7)                                                the eighth operation: no space left
    Order(What.FLIPPED, chance=0.01, times=0)                                one bit in a hundred loads
    Order(What.DEATH, When.MIDST, verbs=CHANGES, after=3)                    the process dies in its fourth change

    what      before                    midst                                       after
    LOST      nothing happened          save: nothing kept; load, list: half of it  it was done; the answer is lost
    FULL EIO  as LOST, but in earnest: ``TargetError``, not ``Unavailable``; of a load ``FileUnreadable``
    DEATH     as LOST, and nothing is done for this process any more
    FLIPPED   one bit of what is loaded or saved is another, and nothing is said
    TORN      half of what is saved is kept, and nothing is said

The orders are looked at in turn; the first that strikes does.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice

from vcbproxy.errors import TargetError
from vcbproxy.repository.backend.around import Around
from vcbproxy.repository.backend.base import (
    Backend,
    FileKind,
    FileName,
    FileUnreadable,
    Stored,
    Unavailable,
)
from vcbproxy.repository.ids import Buffer


class Verb(Enum):
    """What a backend is asked."""

    CREATE = "create"
    SAVE = "save"
    LOAD = "load"
    SIZE = "size"
    LIST = "list"
    REMOVE = "remove"


CHANGES = frozenset({Verb.SAVE, Verb.REMOVE})


class What(Enum):
    """What goes wrong."""

    LOST = "lost"
    FULL = "full"
    EIO = "eio"
    FLIPPED = "flipped"
    TORN = "torn"
    DEATH = "death"


class When(Enum):
    """At which moment of an operation."""

    BEFORE = "before"
    MIDST = "midst"
    AFTER = "after"


class Died(BaseException):
    """The process is dead, as far as the storage can tell: nobody may catch this and go on."""


@dataclass(frozen=True, slots=True)
class Order:
    """One fault.

    Attributes:
        what: goes wrong.
        when: LOST, FULL, EIO and DEATH can be anywhere; the others are always in the midst.
        verbs: of which operations; none: all.
        kinds: of which files; none: all.
        after: so many operations that it would hit go well before.
        times: how often it strikes; 0 for always.
        chance: of each operation that it may hit.
    """

    what: What
    when: When = When.BEFORE
    verbs: frozenset[Verb] = frozenset()
    kinds: frozenset[FileKind] = frozenset()
    after: int = 0
    times: int = 1
    chance: float = 1

    def means(self, verb: Verb, kind: FileKind | None) -> bool:
        """Whether it could hit such an operation."""
        if self.what is What.FLIPPED and verb not in (Verb.SAVE, Verb.LOAD):
            return False
        if self.what is What.TORN and verb is not Verb.SAVE:
            return False
        return (not self.verbs or verb in self.verbs) and (not self.kinds or kind in self.kinds)


class FaultyBackend(Around):
    """A backend in which things go wrong."""

    def __init__(self, inner: Backend, orders: Sequence[Order] = (), seed: int = 0) -> None:
        super().__init__(inner)
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._orders = list(orders)
        self._met = [0] * len(orders)
        self._struck = [0] * len(orders)
        self._dead = False
        self._changes = 0

    @property
    def changes(self) -> int:
        """How many saves and removals were asked for."""
        return self._changes

    @property
    def struck(self) -> int:
        """How many faults there were."""
        return sum(self._struck)

    def order(self, *orders: Order) -> None:
        """From now on let these happen, and none of those before."""
        with self._lock:
            self._orders = list(orders)
            self._met, self._struck = [0] * len(orders), [0] * len(orders)

    def create(self) -> None:
        """Make what is needed."""
        fault = self._next(Verb.CREATE, None)
        self._before(fault, "create it")
        self._inner.create()
        self._after(fault, "create it")

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        """Keep a file, or what is left of it."""
        fault = self._next(Verb.SAVE, name.kind)
        self._before(fault, f"write {name.path}")
        if fault is not None and fault.what in (What.FLIPPED, What.TORN):
            content = bytearray(b"".join(parts))
            parts = [self._flipped(content) if fault.what is What.FLIPPED else content[: len(content) // 2]]
        elif fault is not None and fault.when is When.MIDST:
            raise self._error(fault, f"write {name.path}")
        self._inner.save(name, parts)
        self._after(fault, f"write {name.path}")

    def load(self, name: FileName, offset: int, buf: memoryview) -> None:
        """Fill ``buf``, perhaps with something else."""
        fault = self._next(Verb.LOAD, name.kind)
        if fault is not None and fault.what is What.EIO:
            raise FileUnreadable(location=self.location, path=name.path, reason=os.strerror(errno.EIO))
        self._before(fault, f"read {name.path}")
        if fault is not None and fault.when is When.MIDST and fault.what is not What.FLIPPED:
            self._inner.load(name, offset, buf[: len(buf) // 2])
            raise self._error(fault, f"read {name.path}")
        self._inner.load(name, offset, buf)
        if fault is not None and fault.what is What.FLIPPED:
            buf[:] = self._flipped(bytearray(buf))
        self._after(fault, f"read {name.path}")

    def size(self, name: FileName) -> int:
        """The file's size."""
        fault = self._next(Verb.SIZE, name.kind)
        self._before(fault, f"look at {name.path}")
        if fault is not None:
            raise self._error(fault, f"look at {name.path}")
        return self._inner.size(name)

    def list(self, kind: FileKind) -> Iterator[Stored]:
        """All of it, or half."""
        fault = self._next(Verb.LIST, kind)
        self._before(fault, f"list {kind.value}")
        if fault is not None:
            stored = list(self._inner.list(kind))
            yield from islice(stored, len(stored) if fault.when is When.AFTER else len(stored) // 2)
            raise self._error(fault, f"list {kind.value}")
        yield from self._inner.list(kind)

    def remove(self, name: FileName) -> None:
        """Remove a file, or not."""
        fault = self._next(Verb.REMOVE, name.kind)
        self._before(fault, f"remove {name.path}")
        if fault is not None and fault.when is When.MIDST:
            raise self._error(fault, f"remove {name.path}")
        self._inner.remove(name)
        self._after(fault, f"remove {name.path}")

    def _next(self, verb: Verb, kind: FileKind | None) -> Order | None:
        with self._lock:
            if self._dead:
                raise Died
            self._changes += verb in CHANGES
            for number, order in enumerate(self._orders):
                if not order.means(verb, kind) or (order.times and self._struck[number] >= order.times):
                    continue
                self._met[number] += 1
                if self._met[number] > order.after and self._chance.random() < order.chance:
                    self._struck[number] += 1
                    return order
            return None

    def _before(self, fault: Order | None, action: str) -> None:
        if fault is not None and fault.when is When.BEFORE and fault.what not in (What.FLIPPED, What.TORN):
            raise self._error(fault, action)

    def _after(self, fault: Order | None, action: str) -> None:
        if fault is not None and fault.when is When.AFTER and fault.what not in (What.FLIPPED, What.TORN):
            raise self._error(fault, action)

    def _error(self, fault: Order, action: str) -> BaseException:
        if fault.what is What.DEATH:
            self._dead = True
            return Died()
        if fault.what is What.LOST:
            return Unavailable(location=self.location, action=action, reason="the connection was lost, on purpose")
        number = errno.ENOSPC if fault.what is What.FULL else errno.EIO
        return TargetError(f"{self.location}: cannot {action}: {os.strerror(number)}, on purpose", errno=number)

    def _flipped(self, content: bytearray) -> bytearray:
        """The same but for one bit; nothing has none."""
        if content:
            bit = self._chance.randrange(8 * len(content))
            content[bit // 8] ^= 1 << bit % 8
        return content
