"""A lab whose VMs go to the library's cartridges and come back, by the real commands."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.program import Lab, served
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, LabSpec, Truth, VmSpec
from vcbproxy.units import MiB

_FOLDER = Path("/tmp/archive")
_SPEC = LabSpec(
    seed=7,
    truth=Truth.DIGEST,
    datastores=(DatastoreSpec("ds1", 6, lun_size_bytes=512 * MiB),),
    vms=tuple(
        VmSpec(name, "ds1", disks=(DiskSpec(size, content=ContentSpec(used=0.9)),))
        for name, size in (("web01", 4 * MiB), ("db01", 12 * MiB))
    ),
)
_TAPE = """
[tape.library.steel]
changer = "{changer}"

[tape.pool.daily]
barcodes = ["TAP005L8-TAP006L8"]
retention = "30d"
"""


@contextmanager
def lab(changer: str) -> Iterator[Lab]:
    """Its VMs' LUNs are files; its cartridges are behind the kernel's drivers."""
    with served(_FOLDER / "lab", _SPEC) as found:
        config = found.directory / "vcbproxy.toml"
        config.write_text(config.read_text() + _TAPE.format(changer=changer))
        yield found


def there_and_back(found: Lab) -> dict[str, Any]:
    """Back up both to a pool, restore both, and what the commands say meanwhile."""
    vcbproxy = found.vcbproxy
    rows = vcbproxy("backup", "--all", "--to", "tape:daily", "--json").json
    to = _FOLDER / "back"
    vcbproxy("restore", "web01@latest", "db01@latest", "--from", "tape", "--to", to, "--json")
    back = {vm: {disk.stem: _sha256(disk) for disk in (to / vm).rglob("*.raw")} for vm in ("web01", "db01")}
    return {
        "outcomes": [row["outcome"] for row in rows],
        "barcodes": sorted({barcode for row in rows for barcode in row["barcodes"]}),
        "truth": {vm: found.truth(vm) for vm in back},
        "back": back,
        "drives": vcbproxy("tape", "drive", "list", "--json").json,
        "snapshots": [found.snapshots(vm) for vm in back],
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
