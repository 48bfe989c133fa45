"""A disk on its way from tape to a file: its image, and the deltas that were made upon it since, each in its turn.

    step 0  full image of web01@01:00    unpacked into the file
    step 1  delta     of web01@02:00     its ranges written over what is there
    …                                    named once the last is done, and each was what was recorded

The pieces are put by whoever reads the cartridges; a thread of the disk's own unpacks them, and waits in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobs.restore import RestoredDisk
from jobs.watcher import Watcher
from vcbproxy.archive.agekeys import Identities
from vcbproxy.archive.delta import DeltaMap, DeltaSink, parse_map
from vcbproxy.archive.layout import AGE
from vcbproxy.archive.manifest import Image, Kind
from vcbproxy.errors import CredentialsError, IntegrityError
from vcbproxy.pipeline import output
from vcbproxy.pipeline.agefilter import decrypted
from vcbproxy.pipeline.channel import Channel, Closed
from vcbproxy.pipeline.crew import Crew
from vcbproxy.pipeline.unarchive import Expected, FilledFile, FreshFile, Unpacked, unpack

_PIECES_AHEAD = 8


@dataclass(frozen=True, slots=True)
class Step:
    """One image of a disk: the whole of it, or a delta upon what is there already."""

    point_id: str
    name: str
    image: Image


@dataclass(frozen=True, slots=True)
class Place:
    """Where a disk goes, and how. Without a path it goes nowhere, and is only proved to be whole."""

    title: str
    path: Path | None
    overwrite: bool
    workers: int
    identities: Identities | None = None


class _Nowhere:
    """A sink without a bottom."""

    def write_at(self, offset: int, plain: memoryview) -> None:
        """Drop it."""

    def zero_at(self, offset: int, length: int) -> None:
        """Drop it."""


class TapeDisk:
    """One disk; everything of it has to come in the order of its steps."""

    def __init__(self, place: Place, steps: Sequence[Step], watcher: Watcher) -> None:
        assert place.path is None or steps[0].image.kind is Kind.FULL, "a delta upon nothing"
        self.place = place
        self.steps = tuple(steps)
        self.error: IntegrityError | None = None
        self.restored: RestoredDisk | None = None
        self._watcher = watcher
        self._at = 0
        self._map = bytearray()
        self._closing = ExitStack()
        self._crew: Crew | None = None
        self._pieces: list[Channel[memoryview]] = []
        self._maps: list[Channel[DeltaMap]] = []

    def put(self, step: int, file: str, piece: memoryview) -> None:
        """A piece of an image, or of the file that says where its ranges belong.

        Raises:
            Error: the disk cannot be written.
        """
        if self.error is not None:
            return
        if step != self._at:
            self._fail(IntegrityError(f"{self.place.title}: {file} lies before what it builds on; restore it by hand"))
            return
        if file == self.steps[step].image.ranges:
            self._map += piece
            return
        self._begin()
        try:
            self._pieces[step].put(piece)
        except Closed as error:
            self._fail(error)

    def end(self, step: int, file: str) -> None:
        """All of that file was put.

        Raises:
            Error: the disk cannot be written.
        """
        if self.error is not None:
            return
        try:
            self._begin()
            image = self.steps[step].image
            if file == image.ranges:
                self._maps[step].put(parse_map(bytes(self._map), image.size_bytes, file))
                self._map = bytearray()
                return
            self._pieces[step].close()
            self._at += 1
            if self._at == len(self.steps):
                assert self._crew is not None, "begun"
                self._crew.join()
                self._closing.close()
        except (Closed, IntegrityError) as error:
            self._fail(error)

    def fail(self, error: IntegrityError) -> None:
        """It could not be read: nothing of it is left.

        Raises:
            Error: something else had gone wrong before.
        """
        if self.error is None:
            self._fail(error)

    def close(self, error: BaseException | None) -> None:
        """End its thread, if that is still there. What is not there by now never comes."""
        if self.restored is not None or self.error is not None:
            return
        missing = IntegrityError(f"{self.place.title}: parts of it are missing")
        ended = error or missing
        try:
            self._closing.__exit__(type(ended), ended, ended.__traceback__)
        except IntegrityError as cause:
            self.error = cause
        else:
            self.error = missing

    def _begin(self) -> None:
        if self._crew is None:
            self._crew = self._closing.enter_context(Crew("restore"))
            self._pieces = [self._crew.channel(_PIECES_AHEAD) for _ in self.steps]
            self._maps = [self._crew.channel(1) for _ in self.steps]
            self._crew.start(self._unpack)

    def _fail(self, error: Closed | IntegrityError) -> None:
        """Damage fails this disk; whatever else went wrong in its thread ends all."""
        self._watcher.step(f"{self.place.title}: broken off")
        try:
            self._closing.__exit__(type(error), error, error.__traceback__)
        except IntegrityError as cause:
            error = cause
        self.error = error if isinstance(error, IntegrityError) else IntegrityError(f"{self.place.title}: broken off")
        self._watcher.said(f"{self.place.title}: {self.error}")

    # ------------------------------------------------------------------ the disk's thread

    @contextmanager
    def _opened(self, number: int, name: str) -> Iterator[Iterator[bytes | memoryview]]:
        """A step's pieces, decrypted where they are encrypted.

        Raises:
            CredentialsError: there is no identity, or none that fits.
        """
        pieces = self._pieces[number]
        if not self.steps[number].image.file.endswith(AGE):
            yield iter(pieces)
            return
        if self.place.identities is None:
            raise CredentialsError(
                f"{name} is encrypted: give --identity FILE, or its pool an identity_file or identity_command"
            )
        with decrypted(pieces, self.place.identities, name) as plain:
            yield plain

    def _unpack(self) -> None:
        if self.place.path is None:
            self._prove()
        else:
            self._restore(self.place.path)

    def _prove(self) -> None:
        """Take it apart, and drop it."""
        place, step = self.place, self.steps[0]
        image = step.image
        expected = Expected(image.size_bytes if image.kind is Kind.FULL else None, image.sha256)
        name = f"{step.name}: {image.file}"
        with self._watcher.disk(place.title, image.size_bytes) as advance, self._opened(0, name) as pieces:
            done = unpack(pieces, _Nowhere(), expected, name=name, workers=place.workers, progress=advance)
        self.restored = RestoredDisk(image.key, Path(), done.size_bytes, done.bytes_zero)

    def _restore(self, path: Path) -> None:
        place, image = self.place, self.steps[-1].image
        with (
            self._watcher.disk(place.title, image.size_bytes) as advance,
            output.new_file(path, image.size_bytes, overwrite=place.overwrite) as out,
        ):
            done = Unpacked(0, "", 0)
            for number, step in enumerate(self.steps):
                name = f"{step.name}: {step.image.file}"
                with self._opened(number, name) as pieces:
                    if step.image.kind is Kind.FULL:
                        expected = Expected(step.image.size_bytes, step.image.sha256)
                        sink = FreshFile(out)
                        done = unpack(pieces, sink, expected, name=name, workers=place.workers, progress=advance)
                    else:
                        changed = self._maps[number].get()
                        expected = Expected(changed.size_bytes, step.image.sha256)
                        onto = DeltaSink(FilledFile(out), changed)
                        unpack(pieces, onto, expected, name=name, workers=place.workers)
            out.commit()
        self.restored = RestoredDisk(image.key, path, image.size_bytes, done.bytes_zero)
