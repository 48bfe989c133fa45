"""A pool's cartridges as a shelf: which one is written next, by the catalog, the library and the pool's rules.

    keeper = Keeper(catalog, "main", retention, hand)
    shelf = PoolShelf(terms, "main", library, keeper)          one for each job run
    with shelf.for_writing() as cartridge: …                   several threads, each with a drive of its own

One job run writes one media set. A cartridge that turns out to be unfit is passed over, and the catalog says why.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import datetime

from tape import errors
from tape.elements import ElementKind
from tape.library import Library
from tape.ltfs.volume import LtfsVolume
from tape.sequential import SequentialDrive
from vcbproxy.archive.boundary import translated
from vcbproxy.archive.keeper import Full, Keeper, Unfit
from vcbproxy.archive.shelf import Cartridge
from vcbproxy.catalog.allocation import Candidates, Terms, candidates, goes_on, may_append
from vcbproxy.catalog.expiry import Hold, before_a_pause
from vcbproxy.catalog.medium import FOREVER, MediaSet, Medium
from vcbproxy.errors import CartridgeFailed, CartridgeWanted, Error, IntegrityError

_log = logging.getLogger(__name__)
_ASKED_FOR_MAX = 8
_LOOK_AGAIN_S = 1.0
_OF_THE_CARTRIDGE = (
    errors.WrongCartridge,
    errors.MediumError,
    errors.WriteProtected,
    errors.RefusedCommand,  # of a generation that this drive does not take, for instance
    errors.NotReady,
)

_NOT_TAKEN = (CartridgeFailed, errors.MediumError, errors.WriteProtected, errors.VerifyFailed, errors.FilesLost)


class PoolShelf:
    """The cartridges of one pool, for one job run. Any thread may call any method."""

    def __init__(
        self,
        terms: Terms,
        library_name: str,
        library: Library,
        keeper: Keeper,
        *,
        drive_session: Callable[[SequentialDrive], AbstractContextManager[None]] = lambda drive: nullcontext(),
        verify: bool = False,
        wait_s: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use what is open.

        Args:
            terms: the pool's rules.
            library_name: what the configuration calls the library.
            library: the same, open.
            keeper: of its catalog.
            drive_session: what a drive needs from the moment that a cartridge is in it until it is let go, as a key.
            verify: read everything again before an index lists it.
            wait_s: how long to wait for a drive.
            sleep: waits so many seconds.
            monotonic: a clock, in seconds.
        """
        self._terms = terms
        self._library_name = library_name
        self._library = library
        self._keeper = keeper
        self._catalog = keeper.catalog
        self._drive_session = drive_session
        self._verify = verify
        self._wait_s = wait_s
        self._sleep = sleep
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._taken: set[str] = set()
        self._unfit: set[str] = set()
        self._set: MediaSet | None = None

    @property
    def pool(self) -> str:
        """The pool's name."""
        return self._terms.pool

    @contextmanager
    def for_writing(self) -> Iterator[Cartridge]:
        """A cartridge with room; see ``Shelf``.

        Raises:
            CartridgeWanted: the pool has none left; which labels would do is said.
            Busy: every drive is taken.
            Error: the drive or the robot failed.
        """
        with _as_ours(), ExitStack() as held:
            barcode, volume, media_set = self._find(held)
            volume.verifies = self._verify
            volume.before_index = lambda: self._keeper.renote(volume, self._terms.retention)
            try:
                with volume:
                    yield Cartridge(barcode, media_set.id, volume)
            except BaseException as error:
                if isinstance(error, _NOT_TAKEN):
                    with self._lock:
                        self._unfit.add(barcode)
                with suppress(Error, errors.TapeError):  # the first error is the one to be told
                    if (cause := _told_by(volume.drive, error)) is not None:
                        self._keeper.failed(barcode, cause)
                with suppress(Error, errors.TapeError):
                    self._keeper.written(barcode, volume, media_set)
                raise
            try:
                self._keeper.written(barcode, volume, media_set)
            except Error as error:
                error.add_note(f"what was written is safe on {barcode}: `vcbproxy tape catalog rebuild {barcode}`")
                raise

    @contextmanager
    def for_reading(self, barcode: str) -> Iterator[Cartridge]:
        """A certain cartridge; see ``Shelf``.

        Raises:
            CartridgeWanted: it is not in the library; where it is, is said.
            Busy: every drive is taken.
            IntegrityError: it is another one than the catalog means, or holds no volume that can be read.
        """
        known = self._catalog.media.get(barcode)
        with _as_ours(), ExitStack() as held:
            try:
                drive = held.enter_context(self._library.loaded(barcode, wait_s=self._wait_s))
            except errors.CartridgeMissing as error:
                where = f"; it should be in vault {known.vault}" if known is not None and known.vault else ""
                raise CartridgeWanted(f"{error}{where}", barcodes=(barcode,)) from error
            held.enter_context(self._drive_session(drive))
            unreadable = self._noting(known)
            try:
                volume = self._keeper.hand.mount_to_read(drive)
            except errors.MediumError as error:
                unreadable(error)
                raise
            if known is not None and known.volume_uuid not in (None, volume.uuid):
                raise IntegrityError(
                    f"cartridge {barcode} should hold volume {known.volume_uuid}, and holds {volume.uuid}: swapped?"
                )
            yield Cartridge(barcode, (known.media_set if known else None) or "", volume, unreadable)

    def _noting(self, known: Medium | None) -> Callable[[errors.MediumError], None]:
        """Who is told of places that cannot be read, and notes the first: a bad stretch has thousands."""
        told: list[errors.MediumError] = []

        def unreadable(error: errors.MediumError) -> None:
            if known is not None and not told:
                told.append(error)
                with suppress(Error):  # what cannot be read is to be told, not what could not be noted of it
                    self._keeper.failed(known.barcode, error)

        return unreadable

    # ------------------------------------------------------------------ which one

    def _media_set(self) -> MediaSet:
        """The one that this job run writes."""
        with self._lock:
            if self._set is None:
                now = self._keeper.hand.now()
                until = self._terms.retention.after(now)  # from here on: else it could be recycled while it is written

                def choose(newest: MediaSet | None) -> MediaSet:
                    if newest is not None and goes_on(newest, self._terms, now):
                        return replace(newest, retention_until=max(until, newest.retention_until or until))
                    set_id = f"{self.pool}-{now:%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
                    return MediaSet(set_id, self.pool, now, retention_until=until)

                self._set = self._catalog.sets.current(self.pool, choose)
            return self._set

    def _find(self, held: ExitStack) -> tuple[str, LtfsVolume, MediaSet]:
        """The best cartridge that will do, in a drive, its volume mounted; what it needs is put on the stack.

        One that somebody else works with is passed over for now: waiting comes last.
        """
        media_set = self._media_set()
        until_s = self._monotonic() + self._wait_s
        while True:
            try:
                return self._try_each(held, media_set)
            except errors.InUse:
                if self._monotonic() >= until_s:
                    raise
                self._sleep(_LOOK_AGAIN_S)

    def _try_each(self, held: ExitStack, media_set: MediaSet) -> tuple[str, LtfsVolume, MediaSet]:
        busy: errors.InUse | None = None
        stuck: errors.MoveFailed | None = None
        passed: set[str] = set()
        while True:
            chosen, others = self._reserve(media_set, passed)
            if chosen is None:
                if busy is not None:
                    raise busy
                if stuck is not None:
                    raise stuck
                raise self._wanted(media_set, others)
            with ExitStack() as trial:
                trial.callback(self._let_go, chosen.barcode)
                try:
                    volume = self._open(trial, chosen, media_set)
                except errors.CartridgeMissing:
                    passed.add(chosen.barcode)
                except errors.MoveFailed as error:  # one that is stuck in its slot must not end every backup
                    stuck = error
                    passed.add(chosen.barcode)
                    _log.warning("passed over: %s", error)
                except errors.InUse as error:
                    busy = error
                    passed.add(chosen.barcode)
                    if self._library.inventory().where(chosen.barcode).kind is not ElementKind.DRIVE:
                        raise  # it lies in its slot: then it is the drives that are all taken
                except (Unfit, *_OF_THE_CARTRIDGE) as error:
                    self._pass_over(chosen.barcode, error)
                else:
                    held.push(trial.pop_all())
                    return chosen.barcode, volume, media_set

    def _reserve(self, media_set: MediaSet, passed: set[str]) -> tuple[Medium | None, Candidates]:
        """The best one that no other thread has, taken for this one."""
        labels = Counter(self._library.inventory().barcodes)
        present = {label for label, count in labels.items() if count == 1}  # of twins nobody knows which is which
        with self._lock, self._catalog.transaction():
            taken = self._taken | self._unfit | passed
            media = self._catalog.media.listed()
            paused, _ = self._before_a_pause()
            held = {*self._keeper.holds(), *(medium.barcode for medium in media if medium.media_set in paused)}
            found = candidates(media, held, self._terms, media_set.id, present, taken)
            if not found.here:
                return None, found
            self._taken.add(found.here[0].barcode)
            return found.here[0], found

    def _before_a_pause(self) -> tuple[set[str], datetime | None]:
        others = [one for one in self._catalog.sets.listed() if self._set is None or one.id != self._set.id]
        return before_a_pause(others, self._keeper.hand.now())

    def _let_go(self, barcode: str) -> None:
        with self._lock:
            self._taken.discard(barcode)

    def _open(self, trial: ExitStack, chosen: Medium, media_set: MediaSet) -> LtfsVolume:
        drive = trial.enter_context(self._library.loaded(chosen.barcode))
        trial.enter_context(self._drive_session(drive))
        found, volume = self._keeper.look(drive, chosen.barcode)
        if may_append(chosen, media_set.id):
            return self._keeper.go_on(chosen, found, volume, media_set)
        until = self._terms.retention.after(self._keeper.hand.now())
        return self._keeper.take(drive, chosen.barcode, found, volume, media_set, until)

    def _pass_over(self, barcode: str, error: Exception) -> None:
        with self._lock:
            self._unfit.add(barcode)
        self._keeper.passed_over(barcode, error)
        if not isinstance(error, Full):
            _log.warning("passed over: %s", error)

    def _wanted(self, media_set: MediaSet, others: Candidates) -> CartridgeWanted:
        ranges = ", ".join(str(one) for one in self._terms.barcodes)
        labels = others.elsewhere[:_ASKED_FOR_MAX]
        would_do = f"bring {' or '.join(labels)}, or a new one" if labels else "bring a new one"
        kept = [hold for label, hold in self._keeper.holds().items() if self._terms.may_take(label)]
        first = min(kept, key=lambda hold: hold.until, default=None)
        later = f"; {first.barcode} may be overwritten from {first.until:%Y-%m-%d}" if first and _ends(first) else ""
        if any(hold.for_unseen for hold in kept):
            later += "; or sooner, if no cartridge is missing: `vcbproxy tape catalog rebuild --complete`"
        paused, since = self._before_a_pause()
        if since is not None and any(medium.media_set in paused for medium in self._catalog.media.listed()):
            later = (
                f"; what was written until {since:%Y-%m-%d} is not written over by itself, for a long pause followed: "
                "if the clock is right, `vcbproxy tape media recycle` frees what has expired"
            )
        return CartridgeWanted(
            f"pool {self.pool}: no cartridge with room is in library {self._library_name} for media set "
            f"{media_set.id}; {would_do} with a label of {ranges}{later}",
            barcodes=labels or tuple(str(one) for one in self._terms.barcodes),
        )


def _told_by(drive: SequentialDrive, error: BaseException | None) -> errors.MediumError | None:
    """What this drive said of the cartridge in it, whatever it was wrapped in; not what others met elsewhere."""
    while error is not None:
        if isinstance(error, errors.MediumError) and error.device == drive.name:
            return error
        error = error.__cause__
    return None


def _ends(hold: Hold) -> bool:
    return hold.until < FOREVER


@contextmanager
def _as_ours() -> Iterator[None]:
    """The tape's errors become ours; nothing else does, for what is done inside is the caller's."""
    try:
        yield
    except errors.TapeError as error:
        raise translated(error) from error
