"""Reading at random what lies on tape: the parts of a file as one device, and a disk with its deltas as another.

    disk     full image ◀─ delta ◀─ delta       the newest that has a byte gives it
    image    seek table ─▶ frame ─▶ part ─▶ cartridge: loaded when it is needed, and kept until another is

Each change of cartridges takes a minute, and a seek as long: this is for a few files, not for a disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Self

import numpy as np

from jobs.tapedisk import Step
from vcbproxy.archive import layout, reader
from vcbproxy.archive.delta import DeltaMap, parse_map
from vcbproxy.archive.manifest import Kind
from vcbproxy.archive.seekable import SeekableImage
from vcbproxy.archive.shelf import Cartridge
from vcbproxy.catalog.records import ArchivedPart
from vcbproxy.device import Device, check_range
from vcbproxy.errors import IntegrityError, UsageError

Load = Callable[[str], AbstractContextManager[Cartridge]]
"""A cartridge by its label."""


class Loaded:
    """The cartridge that is read from now; one at a time. For one thread."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._stack = ExitStack()
        self._cartridge: Cartridge | None = None

    def cartridge(self, barcode: str) -> Cartridge:
        """That one, in a drive.

        Raises:
            CartridgeWanted: it is not in the library.
        """
        if self._cartridge is None or self._cartridge.barcode != barcode:
            self._cartridge = None
            self._stack.close()
            self._cartridge = self._stack.enter_context(self._load(barcode))
        return self._cartridge

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


class PartsDevice:
    """A file on cartridges, by position."""

    def __init__(self, name: str, parts: Sequence[ArchivedPart], loaded: Loaded) -> None:
        self._name = name
        self._parts = tuple(sorted(parts, key=lambda part: part.number))
        self._ends = np.cumsum([part.size_bytes for part in self._parts], dtype=np.int64)
        self._loaded = loaded

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._name

    @property
    def size_bytes(self) -> int:
        """All parts together."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def read_into(self, offset: int, buf: memoryview) -> None:
        """Fill all of ``buf``.

        Raises:
            IntegrityError: it cannot be read.
            CartridgeWanted: a cartridge is not in the library.
        """
        check_range(self, offset, len(buf))
        done = 0
        row = int(np.searchsorted(self._ends, offset, side="right"))
        while done < len(buf):
            part = self._parts[row]
            within = offset + done - (int(self._ends[row]) - part.size_bytes)
            count = min(part.size_bytes - within, len(buf) - done)
            cartridge = self._loaded.cartridge(part.barcode)
            file = reader.opened(cartridge, part)
            with reader.reading(cartridge):
                file.read_into(within, buf[done : done + count])
            done += count
            row += 1


class Overlay:
    """A disk as a delta leaves it."""

    def __init__(self, below: Device, packed: Device, changed: DeltaMap) -> None:
        """``below``: the disk before; ``packed``: the ranges that ``changed`` names, one behind the other."""
        self._below = below
        self._packed = packed
        self._ranges = changed.ranges
        lengths = self._ranges[:, 1] - self._ranges[:, 0]
        self._starts = np.cumsum(lengths, dtype=np.int64) - lengths

    @property
    def name(self) -> str:
        """The delta's."""
        return self._packed.name

    @property
    def size_bytes(self) -> int:
        """The disk's."""
        return self._below.size_bytes

    def read_into(self, offset: int, buf: memoryview) -> None:
        """Fill all of ``buf``; what the delta has whole is not read below.

        Raises:
            IntegrityError: something is damaged.
        """
        check_range(self, offset, len(buf))
        at, end = offset, offset + len(buf)
        row = int(np.searchsorted(self._ranges[:, 1], offset, side="right"))
        while at < end:
            start, stop = self._ranges[row].tolist() if row < len(self._ranges) else (end, end)
            if at < start:
                upto = min(start, end)
                self._below.read_into(at, buf[at - offset : upto - offset])
                at = upto
            if at < end:
                upto = min(stop, end)
                within = int(self._starts[row]) + at - start
                self._packed.read_into(within, buf[at - offset : upto - offset])
                at = upto
            row += 1


def open_disk(steps: Sequence[Step], files: Sequence[Sequence[ArchivedPart]], loaded: Loaded) -> Device:
    """A disk by position, with all its deltas.

    Args:
        steps: its images, the whole one first.
        files: for each of them, all parts of its restore point.
        loaded: the drive.

    Raises:
        IntegrityError: a seek table or a map is damaged.
        UsageError: it is encrypted.
    """
    disk: Device | None = None
    for step, parts in zip(steps, files, strict=True):
        if step.image.kind is Kind.FULL:
            disk = open_image(step, step.image.size_bytes, loaded)
        else:
            assert disk is not None, "a delta upon nothing"
            changed = map_of(step, parts, loaded)
            disk = Overlay(disk, open_image(step, changed.size_bytes, loaded), changed)
    if disk is None or disk.size_bytes != steps[-1].image.size_bytes:
        raise IntegrityError(f"{steps[-1].name}: {steps[-1].image.file} is not of the size that was recorded")
    return disk


def open_image(step: Step, size_bytes: int, loaded: Loaded) -> SeekableImage:
    """What one image has, by position.

    Args:
        step: the image.
        size_bytes: of what it has. A seek table has no checksum: one wrong length in it, and all frames behind it would
            be good ones in wrong places.
        loaded: the drive.

    Raises:
        IntegrityError: its seek table is damaged.
        UsageError: it is encrypted: it can be read from its beginning only.
    """
    image = SeekableImage(image_device(step, loaded))
    if image.size_bytes != size_bytes:
        raise IntegrityError(
            f"{image.name}: damaged seek table: it tells of {image.size_bytes} bytes, {size_bytes} were recorded"
        )
    return image


def image_device(step: Step, loaded: Loaded) -> PartsDevice:
    """One image's bytes.

    Raises:
        UsageError: it is encrypted: it can be read from its beginning only.
    """
    if step.image.file.endswith(layout.AGE):
        raise UsageError(f"{step.name}: {step.image.file} is encrypted, and is only read as a whole: restore it all")
    return PartsDevice(f"{step.name}: {step.image.file}", step.image.parts, loaded)


def map_of(step: Step, parts: Sequence[ArchivedPart], loaded: Loaded) -> DeltaMap:
    """Where a delta's ranges belong.

    Raises:
        IntegrityError: it is damaged.
    """
    named = sorted((part for part in parts if part.file == step.image.ranges), key=lambda part: part.number)
    text = b"".join(reader.small(loaded.cartridge(part.barcode), part) for part in named)
    return parse_map(text, step.image.size_bytes, f"{step.name}: {step.image.ranges}")
