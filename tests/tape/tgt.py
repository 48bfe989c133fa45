"""tgtd's virtual tape library: robot and drives that are not ours, for the same code and the same programs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

IQN = "iqn.2026-01.example:tgt"
BARCODES = ("TST001L8", "TST002L8", "TST003L8", "TST004L8")
DRIVES, CHANGER = (1, 2), 3
FIRST_DRIVE, FIRST_SLOT, FIRST_MAIL_SLOT, SLOTS = 256, 1024, 768, 8
_DAEMON = Path("/usr/sbin/tgtd")
_START_S = 15.0


@dataclass(frozen=True, slots=True)
class TgtLibrary:
    """One that runs.

    Attributes:
        target: its iSCSI URL, without a LUN.
    """

    target: str

    def url(self, lun: int) -> str:
        return f"{self.target}/{lun}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port: int = held.getsockname()[1]
        return port


class _Daemon:
    """tgtd, and tgtadm speaking to it: by a socket and a number of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self._number = str(port % 30_000)
        self._short = tempfile.TemporaryDirectory(prefix="tgt-")  # a test's own folder is too long for a socket's name
        self._environment = {**os.environ, "TGT_IPC_SOCKET": f"{self._short.name}/control"}
        self._log = (folder / "tgtd.log").open("wb")
        self._process = subprocess.Popen(
            [_DAEMON, "-C", self._number, "-f", "--iscsi", f"portal=127.0.0.1:{port}"],
            env=self._environment, stdout=self._log, stderr=self._log,
        )  # fmt: skip

    def do(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["tgtadm", "-C", self._number, "--lld", "iscsi", *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=30, check=False)

    def must(self, *arguments: str) -> None:
        done = self.do(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"

    def wait_ready(self) -> None:
        until = time.monotonic() + _START_S
        while self.do("--op", "show", "--mode", "sys").returncode:
            assert self._process.poll() is None, "tgtd has ended"
            assert time.monotonic() < until, "tgtd does not answer"
            time.sleep(0.05)

    def end(self) -> None:
        self._process.kill()  # it heeds nothing less while it has targets
        self._process.wait()
        self._log.close()
        self._short.cleanup()


@contextmanager
def running(folder: Path) -> Iterator[TgtLibrary]:
    """A library with two drives, eight slots, two mail slots and four cartridges."""
    if not _DAEMON.exists() or shutil.which("tgtimg") is None:
        pytest.skip("no tgtd here: `.ci/prepare test` installs it")
    if os.geteuid():
        pytest.skip("tgtd needs root")
    _make_images(folder)
    port = _free_port()
    daemon = _Daemon(folder, port)
    try:
        daemon.wait_ready()
        _set_up(daemon, folder)
        yield TgtLibrary(f"iscsi://127.0.0.1:{port}/{IQN}")
    finally:
        daemon.end()


def _make_images(folder: Path) -> None:
    (folder / "smc").write_bytes(bytes(1024))
    images = [(f"notape{lun}", "", "1", "clean") for lun in DRIVES]
    images += [(barcode, barcode, "200", "data") for barcode in BARCODES]
    for name, barcode, size, kind in images:
        command = ["tgtimg", "--op", "new", "--device-type", "tape", f"--barcode={barcode}", f"--size={size}"]
        command += [f"--type={kind}", f"--file={folder / name}", "--thin-provisioning"]
        subprocess.run(command, check=True, capture_output=True, timeout=30)


def _set_up(daemon: _Daemon, folder: Path) -> None:
    unit = ("--mode", "logicalunit", "--tid", "1", "--lun")
    daemon.must("--op", "new", "--mode", "target", "--tid", "1", "-T", IQN)
    for lun in DRIVES:
        daemon.must("--op", "new", *unit, str(lun), "-b", str(folder / f"notape{lun}"), "--device-type", "tape")
        names = f"vendor_id=STGT,product_id=VDRIVE,product_rev=0001,scsi_sn=VDRV000{lun},removable=1,online=0"
        daemon.must("--op", "update", *unit, str(lun), "--params", names)
    daemon.must("--op", "new", *unit, str(CHANGER), "-b", str(folder / "smc"), "--device-type", "changer")
    elements = [
        f"vendor_id=STGT,product_id=VLIB,product_rev=0001,scsi_sn=VLIB0001,removable=1,media_home={folder}",
        f"element_type=4,start_address={FIRST_DRIVE},quantity={len(DRIVES)}",
        *(f"element_type=4,address={FIRST_DRIVE + at},tid=1,lun={lun}" for at, lun in enumerate(DRIVES)),
        "element_type=1,start_address=1,quantity=1",
        f"element_type=2,start_address={FIRST_SLOT},quantity={SLOTS}",
        f"element_type=3,start_address={FIRST_MAIL_SLOT},quantity=2",
        *(f"element_type=2,address={FIRST_SLOT + at},barcode={barcode},sides=1" for at, barcode in enumerate(BARCODES)),
    ]
    for element in elements:
        daemon.must("--op", "update", *unit, str(CHANGER), "--params", element)
    daemon.must("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")
