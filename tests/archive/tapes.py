"""Backups of one lab onto a shelf of emulated cartridges, and back."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from jobs import backup
from jobs.choices import Choices, Surroundings
from jobs.fromtape import TapeRestore
from jobs.intoarchive import ArchiveOptions, IntoArchive
from jobs.outcome import Report
from jobs.taperestored import Restored
from jobs.tapewanted import Where
from jobs.watcher import Nobody
from tests.archive.shelves import FolderShelf, Noted
from tests.jobs.rehearsal import Prompter, Stage
from tests.jobs.test_main_job import sha256
from vcbproxy.archive.remembered import Remembered
from vcbproxy.catalog.records import ArchivedPoint
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, LabSpec, Truth, VmSpec
from vcbproxy.manager import inventory
from vcbproxy.manager.marker import Marker
from vcbproxy.san import discover
from vcbproxy.source.storage import Storage
from vcbproxy.units import GiB, MiB

OPTIONS = ArchiveOptions(ring_bytes=MiB)


def spec(*vms: str, disks: int = 2, size_bytes: int = 4 * MiB, version: int = 6, used: float = 0.5) -> LabSpec:
    """A lab with so many VMs."""
    disk = DiskSpec(size_bytes, content=ContentSpec(used=used))
    return LabSpec(
        datastores=(
            DatastoreSpec("ds1", version, lun_size_bytes=GiB),
            DatastoreSpec("ds2", 5, lun_size_bytes=GiB),
        ),
        vms=tuple(VmSpec(vm, "ds1", disks=(disk,) * disks) for vm in vms or ("vm1",)),
        truth=Truth.DIGEST,
    )


@dataclass
class Tapes:
    """A lab, a shelf, a catalog."""

    stage: Stage
    shelf: FolderShelf
    ledger: Noted = field(default_factory=Noted)
    said: list[str] = field(default_factory=list)
    doubtful: Callable[[], Collection[str]] = tuple
    """Labels of cartridges that have failed, as the catalog has them."""

    @property
    def remembered(self) -> Remembered:
        return Remembered(self.shelf.root.parent / "remembered")

    @classmethod
    @contextmanager
    def of(cls, folder: Path, lab: LabSpec, *capacities_mib: int) -> Iterator[Tapes]:
        with Stage.opened(folder / "lab", lab) as stage:
            yield cls(stage, FolderShelf(folder / "shelf", capacities_mib or (64,)))

    def backed_up(
        self, *selectors: str, options: ArchiveOptions = OPTIONS, watcher: Prompter | None = None, **choices: object
    ) -> Report:
        """One job run."""
        watcher = watcher or Prompter()
        registry = self.stage._registry
        with (
            registry.begin() as job_run,
            self.stage.connected() as session,
            Storage(inventory.datastores(session), discover.listed(self.stage._config.san), {}) as storage,
        ):
            around = Surroundings(
                session=session,
                storage=storage,
                target=IntoArchive(self.shelf, self.ledger, self.remembered, options, doubtful=self.doubtful),
                job_run=job_run,
                registry=registry,
                clock=self.stage.clock,
                watcher=watcher,
            )
            try:
                return backup.run(around, selectors, Choices(**choices))  # type: ignore[arg-type]
            finally:
                self.said += watcher.told

    def truth(self, vm: str, back: int = 1) -> dict[str, str]:
        """SHA-256 of each disk at the newest snapshot of ours, or an older one."""
        ours = [one for one in self.stage.datacenter.truths(vm) if Marker.read(one.description) is not None]
        return {node: held.sha256 for node, held in ours[-back].disks.items()}

    def restoring(self, *, salvage: bool = False) -> TapeRestore:
        return TapeRestore(self.shelf, Nobody(), self.stage.clock, salvage=salvage)

    def restored(self, to: Path, *points: ArchivedPoint) -> Restored:
        """All of these, each in a folder called like its VM."""
        return self.restoring().run([Where(point, to / point.vm) for point in points])


def disks_in(folder: Path) -> dict[str, str]:
    """SHA-256 of each raw disk."""
    return {path.stem: sha256(path) for path in sorted(folder.glob("*.raw"))}


def by_hand(shelf: FolderShelf, point: ArchivedPoint, to: Path) -> str:
    """Copy a restore point's files as RESTORE.txt says, and carry out the commands that it gives; what they said."""
    from vcbproxy.archive import reader

    to.mkdir(parents=True, exist_ok=True)
    for barcode in point.barcodes:
        with shelf.for_reading(barcode) as cartridge:
            for part in point.parts:
                if part.barcode == barcode:
                    data = b"".join(reader.pieces(cartridge, part))
                    (to / part.path.rpartition("/")[2]).write_bytes(data)
    return follow(to)


def follow(folder: Path) -> str:
    """Carry out the commands of a folder's RESTORE.txt, word for word, in a shell."""
    lines = (folder / "RESTORE.txt").read_text().splitlines()
    script = "".join(f"{line[4:]}\n" for line in lines if line.startswith("    ") and not line.startswith("    -"))
    done = subprocess.run(
        ["sh", "-e", "-c", script], cwd=folder, check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout
