"""A proxy on a real SAN: iSCSI over two cables, multipath, a VMFS LUN; a vCenter, a repository, and what may go wrong.

The steps tell facts; what must be true of them is told by tests/guest/test_san.py, next to the names of the tests.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.guest.inside import array, block, initiator, nfs
from tests.guest.inside.commands import call, wait_until
from tests.guest.inside.suite import StepFunction, say
from tests.guest.inside.trace import KernelTrace
from tests.program import Lab, Program
from tests.san import innocence
from vcbproxy import device
from vcbproxy.errors import SourceError
from vcbproxy.lab import client
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, LabSpec, SnapshotSpec, Truth, VmSpec
from vcbproxy.lab.vcenter import LabServer
from vcbproxy.san.discover import describe
from vcbproxy.san.lun import open_lun
from vcbproxy.san.node import scan
from vcbproxy.san.patience import Patience
from vcbproxy.source.mounted import MountedFile
from vcbproxy.units import MiB

CUT_AFTER_BYTES = 5 * MiB
LAB = Path("/tmp/lab")
SCRATCH = Path("/tmp/scratch.img")
SCRATCH_NAA = "600144f0cafe0000000000000000beef"
EXPORT = LAB / "nfs" / "nfs1"
_SAN = f'[san]\nmounts = [{{ datastore = "nfs1", path = "{nfs.MOUNT}" }}]\n\n'
SPEC = LabSpec(
    seed=42,
    truth=Truth.DIGEST,
    datastores=(DatastoreSpec("san6", 6, lun_size_bytes=512 * MiB, scatter=True), DatastoreSpec("nfs1", 0)),
    vms=(
        VmSpec("web01", "san6", disks=(DiskSpec(32 * MiB, content=ContentSpec(used=0.6)),)),
        VmSpec("file01", "nfs1", disks=(DiskSpec(8 * MiB),), snapshots=(SnapshotSpec(),)),
    ),
)


class San:
    """The steps, and what each leaves to the next."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._stack = ExitStack()
        self._lab: Lab

    def steps(self) -> list[StepFunction]:
        return [
            self.lab_is_served,
            self.san_comes_up,
            self.nfs_is_mounted,
            self.luns_are_listed,
            self.nfs_is_backed_up,
            self.nfs_is_read_directly,
            self.nfs_changes,
            self.the_detectors_detect,
            self.a_backup_is_traced,
            self.one_path_is_cut,
            self.both_paths_are_cut,
            self.paths_come_back,
        ]

    def lab_is_served(self) -> dict[str, Any]:
        datacenter = self._stack.enter_context(Datacenter.create(LAB, SPEC))
        server = self._stack.enter_context(LabServer(datacenter))
        client.set_port(LAB, SPEC, server.port)
        config = LAB / client.CONFIG_NAME
        before, _, rest = config.read_text().partition("[san]")
        config.write_text(f"{before}{_SAN}[repository]{rest.partition('[repository]')[2]}")
        self._lab = Lab(LAB, datacenter, server, Program(config))
        self._lab.vcbproxy("repo", "init")
        return {}

    def san_comes_up(self) -> dict[str, Any]:
        initiator.start_udev()
        [lun] = self._lab.datacenter.state.datastores[0].luns
        self._naa = lun.wwn
        SCRATCH.touch()
        os.truncate(SCRATCH, 16 * MiB)
        array.start([array.ArrayLun(LAB / lun.path, lun.wwn), array.ArrayLun(SCRATCH, SCRATCH_NAA)])
        initiator.log_in()
        wait_until(lambda: len(block.by_cable()) == len(array.CABLES), "the LUN on each cable")
        call("udevadm", "settle")
        bare = self._nodes("without-multipathd")
        initiator.start_multipath()
        wait_until(lambda: initiator.map_of(self._naa), "the multipath map")
        self._paths(2)
        call("udevadm", "settle")
        say(initiator.multipathd("show topology"))
        return {"naa": self._naa, "bare": bare, "mapped": self._nodes("multipath")}

    def _nodes(self, name: str) -> list[dict[str, Any]]:
        """What discovery makes of this machine's block devices now; and the devices as they are, kept for tests."""
        nodes = scan()
        kept = [dataclasses.asdict(node) for node in nodes]
        (self._out / f"{name}.json").write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
        return [{"path": lun.path, "kind": lun.kind.value, "name": lun.canonical_name} for lun in describe(nodes)]

    def luns_are_listed(self) -> dict[str, Any]:
        listed = self._lab.vcbproxy("lun", "list", "--json").json
        checks = self._lab.vcbproxy("check", "--json").json
        return {"luns": listed, "checks": checks}

    def one_path_is_cut(self) -> dict[str, Any]:
        with block.cut_during_read(CUT_AFTER_BYTES, all_cables=False) as cut:
            facts = self._backed_up("web01", code=0)
        cut.note("the backup has ended, with exit code 0")
        after = cut.read_since()
        cut.note(initiator.multipathd("show paths"))
        cut.lines += [line for line in call("dmesg").splitlines() if "connection" in line or "offline" in line]
        facts |= {"cables": cut.cables, "read_before": cut.read_before, "read_after": after, "log": cut.lines}
        facts["nodes"] = self._nodes("one-path-cut")
        self._lab.vcbproxy("verify", "web01@latest")
        return facts | self._restored("web01")

    def both_paths_are_cut(self) -> dict[str, Any]:
        array.plug(*array.CABLES)
        self._paths(2)
        with block.cut_during_read(CUT_AFTER_BYTES, all_cables=True) as cut:
            facts = self._backed_up("web01", code=1)
        facts |= {"cables": cut.cables, "failed_after_s": round(time.monotonic() - cut.at_s, 1)}
        return facts

    def paths_come_back(self) -> dict[str, Any]:
        array.plug(*array.CABLES)
        self._paths(2)
        return self._backed_up("web01", code=0) | self._restored("web01")

    def nfs_is_mounted(self) -> dict[str, Any]:
        nfs.export(EXPORT)
        return {"mount": nfs.mount(EXPORT)}

    def nfs_is_backed_up(self) -> dict[str, Any]:
        return self._backed_up("file01", code=0) | self._restored("file01")

    def nfs_is_read_directly(self) -> dict[str, Any]:
        """Read a file, let its server change it, read it again: the client's page cache has the old bytes."""
        file = EXPORT / "cached.bin"
        file.write_bytes(b"before" + bytes(nfs.FILE_BYTES))
        mounted = nfs.MOUNT / file.name
        cached = mounted.read_bytes()[:6]
        with open_lun(mounted) as opened:
            before = device.read(opened, 0, 6)
            with file.open("r+b") as server:
                server.write(b"after!")
            after = device.read(opened, 0, 6)
            direct = opened.direct
        return {"direct": direct, "read": [cached.decode(), before.decode(), after.decode()]}

    def nfs_changes(self) -> dict[str, Any]:
        """Change files behind the proxy's back, in every way, and at once: the client's cached attributes are stale."""
        with Patience() as patience:
            return {"noticed": {name: _noticed(change, name, patience) for name, change in nfs.CHANGES.items()}}

    def the_detectors_detect(self) -> dict[str, Any]:
        """Do to a scratch LUN what a backup must never do, and hear what the witnesses say."""
        scratch = initiator.map_of(SCRATCH_NAA)
        assert scratch is not None
        path = f"/dev/{next((scratch / 'slaves').iterdir()).name}"
        deeds = {
            "write": ["dd", "if=/dev/zero", f"of=/dev/{scratch.name}", "bs=4k", "count=1", "oflag=direct"],
            "register": ["sg_persist", "--out", "--register", "--param-sark=0x1", path],
            "reserve": ["sg_raw", path, "16", "00", "00", "00", "00", "00"],
            "set read-only": ["blockdev", "--setro", f"/dev/{scratch.name}"],
        }
        return {name: self._witnessed(deed, SCRATCH_NAA) for name, deed in deeds.items()} | {
            "array": array.commands_that_wrote()[2]
        }

    def a_backup_is_traced(self) -> dict[str, Any]:
        """With the wall of the udev rule taken down, so that a write would get through to the array."""
        lun = initiator.map_of(self._naa)
        assert lun is not None
        devices = [lun.name, *(slave.name for slave in (lun / "slaves").iterdir())]
        for name in devices:
            call("blockdev", "--setrw", f"/dev/{name}")
        command = [sys.executable, "-m", "vcbproxy", "backup", "web01", "--json"]
        facts = self._witnessed(command, self._naa)
        read_only = [Path(f"/sys/block/{name}/ro").read_text().strip() for name in devices]
        return facts | {
            "read_only": read_only,
            "array": array.commands_that_wrote()[1],
            "keys": call("sg_persist", "--in", "--read-keys", f"/dev/{devices[1]}"),
            "snapshots": self._lab.snapshots("web01"),
        }

    def _witnessed(self, command: list[str], naa_hex: str) -> dict[str, Any]:
        """Run a program before all witnesses."""
        lun = initiator.map_of(naa_hex)
        assert lun is not None
        numbers = {
            (folder / "dev").read_text().strip().replace(":", ",") for folder in (lun, *(lun / "slaves").iterdir())
        }
        log = Path("/tmp/strace.log")
        with KernelTrace() as trace:
            done = subprocess.run(
                innocence.watched(command, log),
                env=self._lab.vcbproxy.environment,
                capture_output=True,
                text=True,
                check=False,
            )
        say(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        verdicts = {
            "calls": innocence.of_calls(log.read_text("utf-8", "replace")),
            "requests": innocence.of_requests(trace.text, numbers),
            "commands": innocence.of_commands(trace.text),
        }
        return {"code": done.returncode} | {name: dataclasses.asdict(verdict) for name, verdict in verdicts.items()}

    def _paths(self, count: int) -> None:
        waited_s = wait_until(lambda: initiator.paths_in_service(self._naa) == count, f"{count} paths in service", 40)
        say(f"{count} paths in service after {waited_s} s")

    def _backed_up(self, vm: str, *, code: int) -> dict[str, Any]:
        done = self._lab.vcbproxy("backup", vm, "--json", code=code)
        say(done.err or "nothing on stderr")
        return {"report": done.json if done.out else None, "stderr": done.err, "snapshots": self._lab.snapshots(vm)}

    def _restored(self, vm: str) -> dict[str, Any]:
        to = Path(f"/tmp/back-{time.monotonic_ns()}")
        rows = self._lab.vcbproxy("restore", f"{vm}@latest", "--to", to, "--json").json
        return {"truth": self._lab.truth(vm), "restored": {row["disk"]: _sha256(Path(row["file"])) for row in rows}}


def _noticed(change: Callable[[Path], None], name: str, patience: Patience) -> str:
    """What the second look at a file says that was changed on its server after it was read; empty when nothing."""
    file = EXPORT / f"{name}.bin"
    file.write_bytes(bytes(nfs.FILE_BYTES))
    opened = MountedFile(nfs.MOUNT, file.name, file.name, patience)
    try:
        opened.recheck()
        device.read(opened, 0, nfs.FILE_BYTES)
        change(file)
        opened.recheck()
    except SourceError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        opened.close()
    return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def steps(out: Path) -> list[StepFunction]:
    return San(out).steps()
