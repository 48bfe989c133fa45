"""Keeps the catalog and the cartridges' own notes in step, while cartridges are taken into media sets and written to.

    identify ─▶ refuse │ go on │ adopt an empty one │ forget what was on it, format ─▶ note on it ─▶ in the catalog

What is to be overwritten leaves the catalog first: a crash between leaves a cartridge that the catalog does not know,
never one that it believes to hold what is gone.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import datetime

from tape import errors, health, logs, memory
from tape.ltfs.format import Naming
from tape.ltfs.index import File
from tape.ltfs.volume import LtfsVolume
from tape.sequential import SequentialDrive
from vcbproxy.archive import note as notes
from vcbproxy.archive import pins
from vcbproxy.archive.hand import Hand
from vcbproxy.archive.identify import Content, Found, identify
from vcbproxy.archive.note import Note
from vcbproxy.archive.overwriting import refusal
from vcbproxy.catalog.catalog import Catalog
from vcbproxy.catalog.expiry import Hold, holds
from vcbproxy.catalog.length import Length
from vcbproxy.catalog.medium import FORMATTING, MediaSet, Medium, State
from vcbproxy.catalog.recycling import lost_with
from vcbproxy.errors import Error

_log = logging.getLogger(__name__)

DriveSession = Callable[[SequentialDrive], AbstractContextManager[None]]
"""What a drive needs from the moment that a cartridge is in it until it is let go: a key, for instance."""


class Unfit(Error):
    """A cartridge cannot be used for what was wanted; another one may be. ``found``: what lies on it."""


class Full(Unfit):
    """... because it takes no more data. ``reason``: why, if it is not for want of room."""


class Keeper:
    """For one library and its catalog. Any thread may call any method."""

    def __init__(
        self,
        catalog: Catalog,
        library: str,
        retention: Mapping[str, Length],
        hand: Hand,
        *,
        drive_session: DriveSession = lambda drive: nullcontext(),
    ) -> None:
        """Use what is open.

        Args:
            catalog: what is known.
            library: what the configuration calls the library.
            retention: the present rule of each pool.
            hand: who writes.
            drive_session: what a drive needs to read whatever cartridge is in it: the key of the pool that its memory
                names, for instance.
        """
        self.catalog = catalog
        self.hand = hand
        self.drive_session = drive_session
        self.library = library
        self._retention = dict(retention)

    def holds(self) -> dict[str, Hold]:
        """Every cartridge that must not be overwritten now, by barcode."""
        with self.catalog.transaction():
            kept = holds(
                self.catalog.media.listed(),
                self.catalog.sets.listed(),
                self.catalog.points.outlines(),
                self._retention,
                self.hand.now(),
                {pin.point: pin.reason for pin in self.catalog.marks.pins().values() if pin.holds},
            )
        return {hold.barcode: hold for hold in kept}

    # ------------------------------------------------------------------ before it is written to

    def identify(self, drive: SequentialDrive) -> tuple[Found, LtfsVolume | None]:
        """What lies on the cartridge in a drive; nothing is written.

        Raises:
            TapeError: the drive or the way to it is broken.
        """
        return identify(drive, self.hand.maker, self.hand.mount)

    def look(self, drive: SequentialDrive, barcode: str) -> tuple[Found, LtfsVolume | None]:
        """What lies on the cartridge in a drive; a volume of ours whose writer died is rolled back first.

        What it says of pins the catalog knows from then on: before another cartridge is chosen, if it is an older one.

        Raises:
            TapeError: the drive or the way to it is broken, or the volume could not be rolled back.
        """
        known = self.catalog.media.get(barcode)
        found, volume = self.identify(drive)
        if found.unfinished and known is not None and known.volume_uuid == found.volume_uuid:
            self.hand.recover(drive)
            found, volume = self.identify(drive)
        self.catalog.marks.take_in(one.pin for one in found.pins)
        return found, volume

    def go_on(self, known: Medium, found: Found, volume: LtfsVolume | None, media_set: MediaSet) -> LtfsVolume:
        """The volume of a cartridge that a set goes on on.

        Raises:
            Unfit: it is not the one that the catalog means, or takes no more.
        """
        barcode = known.barcode
        if volume is None or found.content is not Content.OURS or found.volume_uuid != known.volume_uuid:
            raise Unfit(
                f"cartridge {barcode} should hold volume {known.volume_uuid}, and holds {found.what}: swapped?",
                found=found,
            )
        if found.note is None or found.note.media_set != media_set.id:
            raise Unfit(
                f"cartridge {barcode} does not belong to media set {media_set.id}, by its own word", found=found
            )
        lacks = self._lacks(barcode, volume)
        if lacks is not None:
            raise Unfit(
                f"cartridge {barcode} lacks {lacks}, which the catalog has on it: an older copy, or rolled back? "
                f"`vcbproxy tape catalog rebuild {barcode}` sees what is there",
                found=found,
            )
        if volume.read_only:
            why = f"cartridge {barcode} takes no writing: {volume.read_only}"
            raise Full(why, found=found, reason=volume.read_only)
        if volume.full or found.note.full:
            raise Full(f"cartridge {barcode} is full", found=found, reason="")
        return volume

    def _lacks(self, barcode: str, volume: LtfsVolume) -> str | None:
        """A file that a restore point in the catalog has on a cartridge, and that its index does not name as long."""
        for point in self.catalog.points.of_cartridge(barcode):
            for part in point.parts:
                if part.barcode == barcode and part.volume_uuid == volume.uuid:
                    entry = volume.index.find(part.path)
                    if not isinstance(entry, File) or entry.length != part.size_bytes:
                        return part.path
        return None

    def refusal(self, barcode: str, found: Found, known: Medium | None, pool: str | None) -> str | None:
        """Why a cartridge must not be overwritten by a pool, or be formatted; None when it may be."""
        said = {pin.point: pin.changed for pin in self.catalog.marks.pins().values()}
        return refusal(barcode, found, known, self.holds().get(barcode), pool, self.hand.now(), said)

    def take(
        self,
        drive: SequentialDrive,
        barcode: str,
        found: Found,
        volume: LtfsVolume | None,
        media_set: MediaSet,
        until: datetime,
    ) -> LtfsVolume:
        """Take a cartridge into a set. What lay on it is gone; its own note says so, and the catalog.

        Raises:
            Unfit: it must not be overwritten.
            TapeError: it cannot be written.
        """
        self._forget(barcode, found, media_set.pool)
        if volume is None or not (found.content is Content.OURS and found.empty):
            volume = self._formatted(drive, barcode, media_set.pool)
        else:
            _tell_pool(drive, media_set.pool)
        now = self.hand.now()
        note = Note(barcode, media_set.pool, media_set.id, media_set.began, now, now, until)
        volume.index.root.xattrs[notes.KEY] = note.encode()
        self._bear_pins(volume)
        volume.commit_anew()
        self.written(barcode, volume, media_set)
        return volume

    def label(
        self, drive: SequentialDrive, barcode: str, found: Found, volume: LtfsVolume | None, *, anew: bool = False
    ) -> LtfsVolume:
        """Format a cartridge for whichever pool will take it. What lay on it is gone.

        Args:
            drive: it lies in it.
            barcode: its label.
            found: what lies on it.
            volume: mounted, if it has one.
            anew: also if it is an empty one of ours.

        Raises:
            Unfit: it must not be overwritten.
            TapeError: it cannot be written.
        """
        self._forget(barcode, found, None)
        if volume is None or anew or not (found.content is Content.OURS and found.empty):
            volume = self._formatted(drive, barcode, "")
        volume.index.root.xattrs[notes.KEY] = Note(barcode).encode()
        volume.commit_anew()
        made = volume
        self.catalog.media.change(barcode, lambda known: _settled(self.measured(known, barcode, made, State.SCRATCH)))
        return made

    def _forget(self, barcode: str, found: Found, pool: str | None) -> None:
        """In the very transaction in which it is decided: what is on it is not listed any more from here on."""

        def forgotten(known: Medium | None) -> Medium:
            reason = self.refusal(barcode, found, known, pool)
            if reason is not None:
                raise Unfit(f"cartridge {barcode} is not overwritten: {reason}", found=found)
            blank = cleared(known or Medium(barcode, State.SCRATCH), serial=found.serial, worm=found.worm)
            return replace(blank, released=FORMATTING)

        with self.catalog.transaction():
            self.catalog.media.change(barcode, forgotten)
            for point in lost_with(self.catalog.points.listed(), [barcode]):
                self.catalog.points.remove(point.id)

    def _formatted(self, drive: SequentialDrive, barcode: str, pool: str) -> LtfsVolume:
        naming = Naming(barcode, str(uuid.uuid4()), barcode, pool)
        LtfsVolume.format(drive, naming, self.hand.maker, self.hand.now_ns)
        return self.hand.mount(drive)

    # ------------------------------------------------------------------ while it is written to, and afterwards

    def renote(self, volume: LtfsVolume, retention: Length) -> None:
        """Have the cartridge say until when it is kept now, and what is pinned; safe with the next commit."""
        now = self.hand.now()
        before = notes.decode(volume.index.root.xattrs[notes.KEY])
        until = max(retention.after(now), before.retention_until or now)
        volume.index.root.xattrs[notes.KEY] = replace(
            before, last_written=now, retention_until=until, full=volume.full
        ).encode()
        self._bear_pins(volume)

    def _bear_pins(self, volume: LtfsVolume) -> None:
        """What is written must become safe, whatever the catalog has: then the pins go with a later index."""
        try:
            pins.bear(volume.index.root.xattrs, self.catalog)
        except Error as error:
            _log.warning("the catalog does not tell what is pinned, the cartridge goes without: %s", error)

    def written(self, barcode: str, volume: LtfsVolume, media_set: MediaSet) -> None:
        """Bring the catalog up to what is on the cartridge now.

        Raises:
            TapeError: the drive does not answer.
        """
        with self.catalog.transaction():
            medium = self.catalog.media.change(
                barcode,
                lambda known: _settled(
                    self.measured(known, barcode, volume, State.FULL if volume.full else State.APPENDABLE)
                ),
            )
            self.note_written(self.catalog.sets.get(media_set.id) or media_set, medium)

    def note_written(self, media_set: MediaSet, medium: Medium) -> None:
        """A set ends no sooner than any of its cartridges says."""
        ends = [end for end in (media_set.retention_until, medium.retention_until) if end is not None]
        lasts = [last for last in (media_set.last_written, medium.last_written) if last is not None]
        self.catalog.sets.put(
            replace(media_set, retention_until=max(ends, default=None), last_written=max(lasts, default=None))
        )

    def measured(self, known: Medium | None, barcode: str, volume: LtfsVolume, state: State) -> Medium:
        """A cartridge with what the volume, the drive and the cartridge's memory count."""
        medium = known or Medium(barcode, state)
        settled = medium.state in (State.RETIRED, State.DAMAGED)
        capacity = logs.capacity(volume.drive)
        life = health.of(volume.drive)
        partition = volume.layout.data_partition
        value = volume.index.root.xattrs.get(notes.KEY)
        note = notes.decode(value) if value is not None else Note(barcode)
        return replace(
            medium.fetched(),
            state=medium.state if settled else state,
            reason=medium.reason if settled else "",
            volume_uuid=volume.uuid,
            pool=note.pool,
            media_set=note.media_set,
            first_written=note.first_written,
            last_written=note.last_written,
            retention_until=note.retention_until,
            bytes_written=sum(entry.length for _, entry in volume.index.root.walk() if isinstance(entry, File)),
            capacity_bytes=capacity.maximum_mib[partition] << 20 if capacity else medium.capacity_bytes,
            remaining_bytes=capacity.remaining_mib[partition] << 20 if capacity else medium.remaining_bytes,
            loads=life.loads if life.loads is not None else medium.loads,
            made_on=life.made_on or medium.made_on,
            life_written_mib=life.written_mib if life.written_mib is not None else medium.life_written_mib,
            life_read_mib=life.read_mib if life.read_mib is not None else medium.life_read_mib,
            last_drive=next(iter(life.last_drives), medium.last_drive),
            library=self.library,
            seen=self.hand.now(),
        )

    def failed(self, barcode: str, error: errors.MediumError) -> None:
        """Note that a cartridge could not be written or read: it is not written to again. What it has, stays."""
        self.catalog.media.change(barcode, lambda known: _damaged(known or Medium(barcode, State.SCRATCH), error))

    def passed_over(self, barcode: str, error: Exception) -> None:
        """Note why a cartridge was not used that the rules had chosen."""

        def noted(known: Medium | None) -> Medium:
            medium = known or Medium(barcode, State.SCRATCH)
            if isinstance(error, errors.MediumError):
                return _damaged(medium, error)
            if isinstance(error, Full):
                return replace(medium, state=State.FULL, reason=str(error.reason))
            if isinstance(error, errors.WriteProtected) and medium.state is State.SCRATCH:
                told = "it takes no writing; once that is mended: `vcbproxy tape media retire --undo`"
                return replace(medium, state=State.RETIRED, reason=told)
            found = error.found if isinstance(error, Unfit) else None
            if not isinstance(found, Found) or found.content is Content.OURS or medium.state is not State.SCRATCH:
                return replace(medium, reason=str(error)) if known is not None else medium
            return replace(medium, state=State.FOREIGN, serial=found.serial, worm=found.worm, reason=found.what)

        with self.catalog.transaction():
            before = self.catalog.media.get(barcode)
            after = noted(before)
            if before is not None or after.state is not State.SCRATCH:
                self.catalog.media.put(after)


def _settled(medium: Medium) -> Medium:
    """What was released has been overwritten."""
    return replace(medium, released=None)


def cleared(medium: Medium, *, serial: str = "", worm: bool | None = None) -> Medium:
    """As it is when nothing on it is wanted."""
    return replace(
        medium,
        state=State.SCRATCH,
        serial=serial or medium.serial,
        worm=medium.worm if worm is None else worm,
        volume_uuid=None,
        pool=None,
        media_set=None,
        first_written=None,
        last_written=None,
        retention_until=None,
        bytes_written=0,
        remaining_bytes=None,
        reason="",
        released=None,
    )


def _damaged(medium: Medium, error: BaseException) -> Medium:
    return replace(medium, state=State.DAMAGED, errors=medium.errors + 1, reason=str(error))


def _tell_pool(drive: SequentialDrive, pool: str) -> None:
    try:
        memory.write(drive, 0, [memory.text_value(memory.Id.MEDIA_POOL, pool, 160)])
    except errors.RefusedCommand:  # the note says it, too
        return
