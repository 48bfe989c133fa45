"""Real block devices for tests: loop devices over sparse images, and udev identities for them.

Needs root; a machine that cannot do it skips the test by name. Loop devices are attached read-only, as LUNs are.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.beside import until

UDEVD = Path("/lib/systemd/systemd-udevd")
RULES = Path("/run/udev/rules.d")
_TURN = Path("/run/lock/vcbproxy-tests-udev.lock")


def need_root(*programs: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root for loop devices")
    need(*programs)


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")


@contextmanager
def attached(image: Path, sector_bytes: int = 512, *, read_only: bool = True) -> Iterator[Path]:
    """A loop device over ``image``."""
    need_root("losetup")
    options = ["--find", "--show", "--direct-io=on", f"--sector-size={sector_bytes}"]
    options += ["--read-only"] if read_only else []
    done = subprocess.run(["losetup", *options, str(image)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"this kernel gives no loop device: {done.stderr.strip()}")
    device = Path(done.stdout.strip())
    before = device.stat()
    try:
        yield device
    finally:
        if not read_only:  # the kernel remembers what a rule set, for the next image too
            subprocess.run(["blockdev", "--setrw", str(device)], check=True)
        subprocess.run(["losetup", "--detach", str(device)], check=True)
        settle()
        if device.exists():  # a rule may have given it away
            os.chown(device, before.st_uid, before.st_gid)
            device.chmod(stat.S_IMODE(before.st_mode))


# linux/loop.h
_LOOP_SET_STATUS64, _LOOP_GET_STATUS64 = 0x4C04, 0x4C05
_LOOP_INFO_BYTES, _SIZE_LIMIT = 232, 32


def resize(device: Path, size_bytes: int) -> None:
    """Make a loop device end early, as if its LUN had been made smaller on the array; 0: as long as its image."""
    fd = os.open(device, os.O_RDONLY)
    try:
        info = bytearray(fcntl.ioctl(fd, _LOOP_GET_STATUS64, bytes(_LOOP_INFO_BYTES)))
        struct.pack_into("<Q", info, _SIZE_LIMIT, size_bytes)
        fcntl.ioctl(fd, _LOOP_SET_STATUS64, bytes(info))
    finally:
        os.close(fd)


@contextmanager
def partition(device: Path, number: int, start_sector: int, sectors: int) -> Iterator[Path]:
    """A partition the kernel is told of, without a table on the device."""
    need_root("addpart", "delpart")
    subprocess.run(["addpart", str(device), str(number), str(start_sector), str(sectors)], check=True)
    try:
        yield Path(f"{device}p{number}")
    finally:
        subprocess.run(["delpart", str(device), str(number)], check=True)


@contextmanager
def scanned(device: Path) -> Iterator[None]:
    """Partitions as the table on the device has them; this kernel may not read tables by itself."""
    need_root("partx")
    subprocess.run(["partx", "--add", str(device)], check=True)
    settle()
    try:
        yield
    finally:
        subprocess.run(["partx", "--delete", str(device)], check=True)
        settle()


def udev_is_running() -> bool:
    return Path("/run/udev/control").exists()


def settle() -> None:
    if udev_is_running() and shutil.which("udevadm"):
        subprocess.run(["udevadm", "settle", "--timeout=10"], check=False)


@contextmanager
def udev_rules(lines: Sequence[str]) -> Iterator[None]:
    """Have udev follow some more rules; with a udevd of our own where none is running.

    Tests of several processes take turns: there is one udev on a machine.
    """
    need_root("udevadm")
    with _turn(), _udevd():
        RULES.mkdir(parents=True, exist_ok=True)
        rules = RULES / "61-vcbproxy-tests.rules"
        rules.write_text("\n".join(lines) + "\n")
        try:
            subprocess.run(["udevadm", "control", "--reload"], check=True)
            yield
        finally:
            rules.unlink()
            subprocess.run(["udevadm", "control", "--reload"], check=True)


@contextmanager
def without_udev() -> Iterator[None]:
    """Only the kernel tells of devices; a machine whose own udevd runs skips the test."""
    with _turn():
        if udev_is_running():
            pytest.skip("needs a machine without a running udevd")
        yield


@contextmanager
def _turn() -> Iterator[None]:
    with _TURN.open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


@contextmanager
def _udevd() -> Iterator[None]:
    if udev_is_running():
        yield
        return
    if not UDEVD.exists():
        pytest.skip("needs systemd-udevd")
    state = Path("/run/udev")
    was_there = state.exists()
    state.mkdir(exist_ok=True)
    quiet = subprocess.DEVNULL
    with subprocess.Popen([str(UDEVD)], stdin=quiet, stdout=quiet, stderr=quiet) as daemon:
        try:
            until(udev_is_running, "udevd to listen", timeout_s=10)
            yield
        finally:
            daemon.terminate()
            daemon.wait(timeout=10)
            (state / "control").unlink(missing_ok=True)
            if not was_there:  # what it knew would pass for the truth about other devices of the same names
                shutil.rmtree(state)


def identify(image: Path, naa_hex: str, serial: str) -> None:
    """What a SAN would tell udev of the LUN that ``image`` stands for; read by the rules of :func:`identity_rules`."""
    facts = {
        "ID_BUS": "scsi",
        "ID_VENDOR": "LABSAN",
        "ID_MODEL": "VIRTUAL-LUN",
        "ID_WWN": f"0x{naa_hex[:16]}",
        "ID_WWN_WITH_EXTENSION": f"0x{naa_hex}",
        "ID_SERIAL": f"3{naa_hex}",
        "ID_SERIAL_SHORT": serial,
        "SCSI_IDENT_LUN_NAA_REGEXT": naa_hex,
    }
    image.with_name(f"{image.name}.san").write_text("".join(f"{key}={value}\n" for key, value in facts.items()))


def identity_rules(folder: Path) -> list[str]:
    """Rules that give the loop devices over the images of a folder the identities that lie beside them."""
    parent = f'SUBSYSTEM=="block", ENV{{DEVTYPE}}=="partition", ATTRS{{loop/backing_file}}=="{folder}/*"'
    ours = f'SUBSYSTEM=="block", ATTR{{loop/backing_file}}=="{folder}/*"'
    return [
        f'{ours}, ENV{{DEVTYPE}}=="disk", IMPORT{{program}}="/bin/cat $attr{{loop/backing_file}}.san"',
        f'{ours}, ENV{{ID_WWN_WITH_EXTENSION}}=="?*", SYMLINK+="disk/by-id/wwn-$env{{ID_WWN_WITH_EXTENSION}}"',
        f'{parent}, IMPORT{{parent}}="ID_WWN*"',
        f'{parent}, SYMLINK+="disk/by-id/wwn-$env{{ID_WWN_WITH_EXTENSION}}-part%n"',
    ]


def trigger(device: Path) -> None:
    subprocess.run(["udevadm", "trigger", "--action=change", "--settle", str(device)], check=True)
