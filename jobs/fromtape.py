"""Restores from tape: each cartridge is loaded once where that can be, and read from its beginning to its end.

    pass      TAP001L8: web01 scsi0-0 part 1, db01 scsi0-0 │ TAP002L8: web01 scsi0-0 part 2, web01 scsi0-1
                   └────────┐       │                             │
    disks     web01 scsi0-0 ▼  db01 ▼  each unpacked by threads of its own, which wait while others' parts come

A disk gets its name once all of it is there and its digest is that of what was read off the LUN. What is damaged fails
alone: the other disks come back all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs.restore import RestoredDisk, require_free
from jobs.tapedevice import Loaded, open_disk
from jobs.tapepass import Pass
from jobs.tapereading import TapeReading
from jobs.taperestored import Restored
from jobs.tapewanted import Where, chosen, steps_of
from vcbproxy.archive.bases import with_bases
from vcbproxy.archive.manifest import Document
from vcbproxy.catalog.records import ArchivedPoint
from vcbproxy.device import read
from vcbproxy.errors import UsageError
from vcbproxy.pipeline import output
from vcbproxy.units import MiB

_STEP_BYTES = 4 * MiB


class TapeRestore(TapeReading):
    """Restores, whole or in part."""

    __slots__ = ()

    def run(
        self,
        wanted: Sequence[Where],
        known: Sequence[ArchivedPoint] = (),
        documents: Mapping[str, Document] | None = None,
    ) -> Restored:
        """Restore it all.

        Args:
            wanted: what, and where to.
            known: all restore points of the catalog, for what they build on.
            documents: what the restore points consist of, if that is known already.

        Raises:
            CartridgeWanted: a cartridge is not there, and is not waited for.
            UsageError: a file is in the way, or there is no such disk.
            IntegrityError: a restore point builds on something that is not known.
            Error: something can be neither read nor written any more.
        """
        proved = [where.point for where in wanted if where.prove]
        built = with_bases([where.point for where in wanted if not where.prove], known)
        points = list({point.id: point for point in (*proved, *built)}.values())
        found, lost = (documents, {}) if documents else self.readable(points)
        with Pass(self, wanted, points, found, lost) as reading:
            return reading.run()

    def part(
        self, point: ArchivedPoint, key: str, path: Path, part: tuple[int, int], known: Sequence[ArchivedPoint]
    ) -> RestoredDisk:
        """Write a part of a disk to a file: (offset, length).

        Raises:
            UsageError: there is no such disk, the part is not in it, or it is encrypted.
            IntegrityError: it is damaged.
            CartridgeWanted: a cartridge is not there, and is not waited for.
        """
        require_free(path, overwrite=self.overwrite)
        points = with_bases([point], known)
        documents = self.documents(points)
        document = documents[point.id]
        [image] = chosen(document, (key,))
        offset, length = part
        if offset + length > image.size_bytes:
            raise UsageError(f"{document.name} {key} has {image.size_bytes} bytes; the range ends at {offset + length}")
        steps = steps_of(document, image, documents)
        files = [next(one.parts for one in points if one.id == step.point_id) for step in steps]
        with Loaded(self.loaded) as loaded, output.new_file(path, length, overwrite=self.overwrite) as out:
            disk = open_disk(steps, files, loaded)
            for at in range(0, length, _STEP_BYTES):
                piece = read(disk, offset + at, min(_STEP_BYTES, length - at))
                out.write_at(at, memoryview(piece))
            out.commit()
        return RestoredDisk(key, path, length, 0)
