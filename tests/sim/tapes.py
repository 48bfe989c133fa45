"""A cartridge, a writer, and one thing that goes wrong: played from a seed, then looked at by somebody else."""

from __future__ import annotations

import errno
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tape.emulator.cartridge import Cartridge
from tape.emulator.drive import DriveLun
from tape.emulator.lun import Check, Lun
from tape.errors import FormatError, TapeError, TransportError, VolumeOverflow, WriteProtected
from tape.ltfs.interval import Interval
from tape.ltfs.journal import Journal
from tape.ltfs.recover import for_reading, recover
from tape.ltfs.stream import FileStream
from tape.ltfs.volume import LtfsVolume
from tape.scsi.sense import Key
from tests.tape.volumes import BLOCK, MAKER, Ticks, content, drive_with, files_of, formatted, put

WRITE, FILEMARKS, READ, LOCATE, POSITION, ATTRIBUTE = 0x0A, 0x10, 0x08, 0x92, 0x34, 0x8D
MOVING = (WRITE, FILEMARKS, READ, LOCATE, POSITION)
CHANGING = (WRITE, FILEMARKS, ATTRIBUTE)


class Dead(Exception):
    """The writer's process, or its host's power, is gone: nothing that it does reaches the drive any more."""


Happens = Callable[["World", DriveLun, bytes], None]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        name: for the summary.
        codes: at which commands; nothing: at any.
        happens: what does; it may raise ``Check``.
        again: at each such command from then on.
        later: not before the volume is mounted; until then another cartridge is as good, and it is the library that
            holds labels against what the cartridge says of itself.
    """

    name: str
    codes: tuple[int, ...]
    happens: Happens
    again: bool = False
    later: bool = False


def _dies(world: World, lun: DriveLun, cdb: bytes) -> None:
    world.off = True
    raise Dead


def _fails(key: Key, asc: int, ascq: int = 0) -> Happens:
    def happens(world: World, lun: DriveLun, cdb: bytes) -> None:
        raise Check(key, asc, ascq)

    return happens


def _loses_buffer(world: World, lun: DriveLun, cdb: bytes) -> None:
    """Blocks that the drive had taken could not be written: told at a later command."""
    world.tape.power_cut(world.draw.randrange(3))
    raise Check(Key.MEDIUM_ERROR, 0x0C, deferred=True)


def _has_no_way(world: World, lun: DriveLun, cdb: bytes) -> None:
    raise TransportError(device="drive", command="a command", reason="the cable was pulled")


def _is_full_below(world: World, lun: DriveLun, cdb: bytes) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _fails_below(world: World, lun: DriveLun, cdb: bytes) -> None:
    raise OSError(errno.EIO, "Input/output error")


def _is_reset(world: World, lun: DriveLun, cdb: bytes) -> None:
    lun.reset()
    raise Check(Key.UNIT_ATTENTION, 0x29)


def _is_rewound(world: World, lun: DriveLun, cdb: bytes) -> None:
    lun.rewound_by_reset()
    raise Check(Key.UNIT_ATTENTION, 0x29)


def _blinks(world: World, lun: DriveLun, cdb: bytes) -> None:
    """The drive's power alone: its buffer is lost, the writer goes on."""
    lun.power_cut(world.draw.randrange(3))
    raise Check(Key.UNIT_ATTENTION, 0x29)


def _sees_a_filemark(world: World, lun: DriveLun, cdb: bytes) -> None:
    raise Check(Key.NO_SENSE, 0x00, 0x01, filemark=True, information=int.from_bytes(cdb[2:5], "big"))


def _ends(world: World, lun: DriveLun, cdb: bytes) -> None:
    lun.warns = world.draw.random() < 0.5
    for partition in (1, world.draw.choice((0, 1))):
        world.tape.limit_bytes[partition] = world.tape.tracks[partition].used_bytes + world.draw.randrange(6) * BLOCK


def _is_swapped(world: World, lun: DriveLun, cdb: bytes) -> None:
    lun.take_out()
    lun.insert(world.other)
    raise Check(Key.UNIT_ATTENTION, 0x28)


FAULTS = (
    Fault("killed", (), _dies),
    Fault("killed at a record", CHANGING, _dies),
    Fault("write error", (WRITE, FILEMARKS), _fails(Key.MEDIUM_ERROR, 0x0C)),
    Fault("write errors for ever", (WRITE, FILEMARKS), _fails(Key.MEDIUM_ERROR, 0x0C), again=True),
    Fault("buffered blocks lost", (FILEMARKS, LOCATE), _loses_buffer),
    Fault("read error", (READ,), _fails(Key.MEDIUM_ERROR, 0x11)),
    Fault("hardware error", (), _fails(Key.HARDWARE_ERROR, 0x44)),
    Fault("hardware errors for ever", MOVING, _fails(Key.HARDWARE_ERROR, 0x44), again=True),
    Fault("lost position", (LOCATE, POSITION), _fails(Key.MEDIUM_ERROR, 0x3B)),
    Fault("memory refuses", (ATTRIBUTE,), _fails(Key.ILLEGAL_REQUEST, 0x24), again=True),
    Fault("cable pulled", (), _has_no_way, again=True),
    Fault("command lost", (), _has_no_way),
    Fault("disk below full", (WRITE, FILEMARKS, ATTRIBUTE), _is_full_below, again=True),
    Fault("disk below fails", (READ, WRITE, FILEMARKS), _fails_below),
    Fault("reset", MOVING, _is_reset),
    Fault("reset that rewinds", MOVING, _is_rewound),
    Fault("drive's power blinks", MOVING, _blinks),
    Fault("filemark too early", (READ,), _sees_a_filemark),
    Fault("end of tape", (WRITE, FILEMARKS), _ends),
    Fault("cartridge swapped", (), _is_swapped, later=True),
)


class World:
    """One cartridge's history, from one seed."""

    def __init__(self, seed: int, scratch: Path, template: Path) -> None:
        self.seed = seed
        self.draw = random.Random(seed)
        self.off = False
        self.journals = scratch / "journals"
        shutil.copytree(template, scratch / "TAP001L8")
        shutil.copytree(template, scratch / "TAP002L8")
        self.lun = DriveLun("VDRV0001")
        self.tape = Cartridge(scratch / "TAP001L8")
        self.other = Cartridge(scratch / "TAP002L8")
        self.other_before = pictured(scratch / "TAP002L8")
        self.lun.insert(self.tape)
        self.safe: dict[str, bytes] = {}
        self.finished: dict[str, bytes] = {}
        self.outcome = ""
        self._files = 0
        self._fired = self._mounted = False

    # ------------------------------------------------------------------ the writer

    def night(self) -> None:
        """A session of a writer; what is safe is noted as soon as it is said to be."""
        verify, size = self.draw.random() < 0.3, self.draw.choice((0, 6, 1 << 40)) * BLOCK
        with LtfsVolume.mount(
            drive_with(self.lun), MAKER, Ticks(), journal=Journal(self.journals), interval=Interval(size, 1e9),
            verify=verify,
        ) as volume:  # fmt: skip
            self._mounted = True
            for _ in range(self.draw.randrange(1, 6)):
                try:
                    self._step(volume)
                except (TapeError, OSError):
                    if self.draw.random() < 0.4:
                        raise
        self._are_safe(volume)

    def _step(self, volume: LtfsVolume) -> None:
        match self.draw.randrange(8):
            case 0:
                volume.commit()
                self._are_safe(volume)
            case 1:
                if volume.checkpoint():
                    self._are_safe(volume)
            case 2:
                writer = volume.create(self._path())
                writer.write(content(1, self.draw.randrange(3 * BLOCK)))
                writer.abort()
            case 3:
                assert files_of(volume).items() >= self.safe.items()
            case 4 | 5:
                self._stream(volume)
            case _:
                self._put(volume)

    def _are_safe(self, volume: LtfsVolume) -> None:
        """All that was finished, but for files that an error has named: they are taken out of the index."""
        self.safe.update({path: data for path, data in self.finished.items() if volume.index.find(path) is not None})

    def _path(self) -> str:
        self._files += 1
        return f"/vm{self.draw.randrange(3)}/{self._files}"

    def _put(self, volume: LtfsVolume) -> None:
        path = self._path()
        data = content(self.seed, self.draw.randrange(4 * BLOCK))
        writer = volume.create(path)
        data = data[: writer.write(data)]
        self.finished[path] = data
        writer.finish()

    def _stream(self, volume: LtfsVolume) -> None:
        path = self._path()
        data = content(self.seed + 1, self.draw.randrange(6 * BLOCK))
        with FileStream(volume.create(path), ring_bytes=2 * BLOCK) as stream:
            for at in range(0, len(data), 3000):
                stream.write(data[at : at + 3000])
            done = stream.finish()
        if done.file is not None:
            self.finished[path] = data[: done.taken]

    # ------------------------------------------------------------------ what goes wrong

    def strike(self, fault: Fault, at: int) -> None:
        """Have it happen at the ``at``-th command that it may happen at."""
        left, struck = at, False
        later = fault.later or self.draw.random() < 0.7
        self._mounted = False

        def before(_lun: Lun, cdb: bytes) -> None:
            nonlocal left, struck
            if self.off:
                raise Dead
            if (fault.codes and cdb[0] not in fault.codes) or (later and not self._mounted):
                return
            left -= 1
            if left >= 0 or (struck and not fault.again):
                return
            self._fired = struck = True
            fault.happens(self, self.lun, cdb)

        self.lun.before = before

    @property
    def fired(self) -> bool:
        """Whether it did."""
        return self._fired

    def morning(self, *, cut: bool) -> None:
        """Everything is switched on again; with a power cut, what the drive had buffered is lost."""
        self.lun.before = None
        self.lun.warns = True
        if self.lun.cartridge is self.other:
            self.lun.take_out()
            self.lun.insert(self.tape)
        if cut:
            self.lun.power_cut(self.draw.randrange(4), end_marked=self.draw.random() < 0.8)
        else:
            self.tape.flush()
        self.off = False

    def misfortune(self, fault: Fault, at: int, *, cut: bool) -> None:
        """A night in which it strikes, and what is seen in the morning."""
        self.strike(fault, at)
        with suppress(Dead, TapeError, OSError):
            self.night()
        self.morning(cut=cut)
        self.hold()

    # ------------------------------------------------------------------ who looks at it

    def hold(self) -> None:
        """Every file that the last index lists is whole; the cartridge is appended to, or refused with a reason."""
        volume = self._opened()
        found = files_of(volume)
        assert found.items() >= self.safe.items(), f"{self}: a file that was safe is gone"
        assert found.items() <= self.finished.items(), f"{self}: a file that was never finished"
        assert pictured(self.other.folder) == self.other_before, f"{self}: the wrong cartridge was written to"
        self._append(volume, found)

    def _opened(self) -> LtfsVolume:
        try:
            return LtfsVolume.mount(drive_with(self.lun), MAKER, Ticks())
        except FormatError:
            self.outcome = "recovered"
        with suppress(Dead):  # the power fails in the midst of recovering
            if self.draw.random() < 0.3:
                self.strike(Fault("", CHANGING, _dies), self.draw.randrange(8))
            journal = Journal(self.journals) if self.draw.random() < 0.7 else None
            try:
                recover(drive_with(self.lun), MAKER, Ticks(), journal)
            except (WriteProtected, VolumeOverflow):
                return for_reading(drive_with(self.lun), MAKER, Ticks())
        self.morning(cut=self.off)
        try:
            return LtfsVolume.mount(drive_with(self.lun), MAKER, Ticks(), search=True)
        except FormatError:
            recover(drive_with(self.lun), MAKER, Ticks())
            return LtfsVolume.mount(drive_with(self.lun), MAKER, Ticks(), search=True)

    def _append(self, volume: LtfsVolume, found: dict[str, bytes]) -> None:
        try:
            if volume.full:
                self.outcome = "full"
                return
            path = self._path()
            with volume:
                put(volume, path, b"after")
            found = {**found, path: b"after"}
            self.finished[path] = self.safe[path] = b"after"
            self.outcome = self.outcome or "appended"
        except WriteProtected as error:
            self.outcome = "refused"
            assert volume.read_only in str(error), f"{self}: no reason was given"  # noqa: PT017
            assert volume.read_only, f"{self}: no reason was given"
            return
        for search in (False, True):
            again = LtfsVolume.mount(drive_with(self.lun), MAKER, Ticks(), search=search)
            assert files_of(again) == found, f"{self}: not what was appended to"

    def __str__(self) -> str:
        return f"seed {self.seed}"


def pictured(folder: Path) -> dict[str, int]:
    """The records and filemarks of a cartridge, by name and size."""
    return {path.name: path.stat().st_size for path in folder.iterdir() if not path.name.startswith("attr_")}


@dataclass
class Told:
    """What became of many."""

    cases: int = 0
    struck: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)

    def add(self, world: World) -> None:
        """One more."""
        self.cases += 1
        self.struck += world.fired
        self.outcomes[world.outcome] = self.outcomes.get(world.outcome, 0) + 1


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder in memory, where there is one: cartridges are many small files."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def template(folder: Path) -> Path:
    """A cartridge, formatted."""
    formatted(folder / "TAP001L8").take_out()
    return folder / "TAP001L8"


def played(seed: int, folder: Path, blank: Path, fault: Fault, at: int, *, cut: bool) -> World:
    """One history."""
    home = folder / str(seed)
    home.mkdir()
    world = World(seed, home, blank)
    if world.draw.random() < 0.7:
        world.night()
    world.misfortune(fault, at, cut=cut)
    if world.outcome in ("appended", "recovered") and world.draw.random() < 0.3:
        world.misfortune(world.draw.choice(FAULTS), world.draw.randrange(20), cut=not cut)
    shutil.rmtree(home)
    return world
