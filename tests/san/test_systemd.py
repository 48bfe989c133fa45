"""The files for systemd and udev, held up to the programs that read them."""

from __future__ import annotations

import errno
import grp
import os
import re
import shlex
import stat
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from uuid import UUID

import pytest

from tests.san import loops
from vcbproxy.cli.frame import EXIT_CODES
from vcbproxy.errors import Busy
from vcbproxy.san.discover import ImageLun, configured
from vcbproxy.units import KiB, MiB

UNITS = Path(__file__).parents[2] / "systemd"
SERVICE = UNITS / "vcbproxy-backup.service"
SERVICES = sorted(UNITS.glob("*.service"))
RULE = UNITS / "60-vcbproxy.rules"
VMFS_PARTITION = UUID("aa31e02a-400f-11db-9590-000c2911d1b8")
LINUX_PARTITION = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    loops.need("systemd-analyze")
    for unit in (*SERVICES, *UNITS.glob("*.timer")):
        text = unit.read_text().replace("/opt/vcbproxy/bin/vcbproxy", sys.executable)
        (tmp_path / unit.name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "vcbproxy" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.parametrize(
    ("result", "cleans"),
    [("success", False), ("exit-code", False), ("signal", True), ("oom-kill", True), ("timeout", True)],
)
def test_the_unit_cleans_up_after_a_kill_alone(tmp_path: Path, result: str, cleans: bool) -> None:
    """Whoever ended by itself has cleaned up already, or said why it could not."""
    [line] = [line for line in SERVICE.read_text().splitlines() if line.startswith("ExecStopPost=")]
    program = tmp_path / "vcbproxy"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n')
    program.chmod(0o755)
    command = shlex.split(line.removeprefix("ExecStopPost=").replace("/opt/vcbproxy/bin/vcbproxy", str(program)))
    subprocess.run(command, env={"SERVICE_RESULT": result, "PATH": "/usr/bin:/bin"}, check=True)
    called = (tmp_path / "called").read_text().splitlines() if (tmp_path / "called").exists() else []
    assert called == (["repo unlock", "cleanup"] if cleans else [])


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.stem)
def test_every_hardening_line_says_why(service: Path) -> None:
    hardening = service.read_text().split("# --- ", 1)[1]
    for block in re.split(r"\n(?=#)", hardening):
        directives = [line for line in block.splitlines() if "=" in line and not line.startswith("#")]
        comments = [line for line in block.splitlines() if line.startswith("#")]
        assert comments or not directives, directives


def test_the_service_may_open_no_block_device_for_writing() -> None:
    lines = SERVICE.read_text().splitlines()
    assert [line for line in lines if line.startswith("DeviceAllow=")] == ["DeviceAllow=block-* r"]
    assert "DevicePolicy=closed" in lines
    assert "CapabilityBoundingSet=" in lines


def test_tape_drives_are_opened_by_the_drop_in_and_block_devices_stay_closed(tmp_path: Path) -> None:
    """Every line of it says why; and systemd takes it together with the service."""
    loops.need("systemd-analyze")
    drop_in = UNITS / "tape.conf"
    lines = drop_in.read_text().splitlines()
    assert [line for line in lines if line.startswith("DeviceAllow=")] == [
        "DeviceAllow=char-sg rw",
        "DeviceAllow=char-st rw",
    ]
    assert "SupplementaryGroups=tape" in lines
    for block in re.split(r"\n(?=#)", drop_in.read_text().split("[Service]\n", 1)[1]):
        assert block.startswith("#"), block
    service = tmp_path / SERVICE.name
    service.write_text(SERVICE.read_text().replace("/opt/vcbproxy/bin/vcbproxy", sys.executable))
    (tmp_path / f"{SERVICE.name}.d").mkdir()
    (tmp_path / f"{SERVICE.name}.d" / "tape.conf").write_bytes(drop_in.read_bytes())
    command = ["systemd-analyze", "verify", "--man=no", str(service)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "tape.conf" in line]) == (0, [])


def test_forgetting_is_tried_again_when_the_repository_is_busy_and_then_alone() -> None:
    """The codes of docs/exit-codes.md that end it for good are all but 11, and none of them is forgotten here."""
    [line] = [one for one in (UNITS / "vcbproxy-forget.service").read_text().splitlines() if "PreventExitStatus" in one]
    assert {int(code) for code in line.partition("=")[2].split()} == set(EXIT_CODES) - {0, Busy.exit_code}


@pytest.mark.root
def test_user_and_directories_come_to_be(tmp_path: Path) -> None:
    loops.need_root("systemd-sysusers", "systemd-tmpfiles")
    (tmp_path / "etc").mkdir()
    for program, options, file in (
        ("systemd-sysusers", [], "vcbproxy.sysusers"),
        ("systemd-tmpfiles", ["--create"], "vcbproxy.tmpfiles"),
    ):
        subprocess.run([program, f"--root={tmp_path}", *options, str(UNITS / file)], check=True)
    passwd = (tmp_path / "etc/passwd").read_text()
    found = re.search(r"^vcbproxy:\w*:(\d+):(\d+):.*:/var/lib/vcbproxy:.*nologin$", passwd, re.MULTILINE)
    assert found is not None, passwd
    state, config = (tmp_path / "var/lib/vcbproxy").stat(), (tmp_path / "etc/vcbproxy").stat()
    assert (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)) == (int(found[1]), int(found[2]), 0o700)
    assert (config.st_uid, config.st_gid, stat.S_IMODE(config.st_mode)) == (0, int(found[2]), 0o750)


def gpt(size_bytes: int, kind: UUID, start: int, length: int) -> bytes:
    """A disk with one GPT partition, which begins like a device of a VMFS volume.

    0     512     1 KiB                   start         start + 1 MiB
    MBR   header  128 entries of 128 B    partition     LVM magic, version 5
    """
    disk = bytearray(size_bytes)
    disk[446:462] = struct.pack("<B3xB3xII", 0, 0xEE, 1, size_bytes // 512 - 1)
    disk[510:512] = b"\x55\xaa"
    entry = kind.bytes_le + UUID(int=7).bytes_le + struct.pack("<QQ", start // 512, (start + length) // 512 - 1)
    entries = entry.ljust(128 * 128, b"\0")
    disk[KiB : KiB + len(entries)] = entries
    last = size_bytes // 512 - 1
    places = struct.pack("<QQQQ16sQII", 1, last, 34, last - 33, UUID(int=9).bytes_le, 2, 128, 128)
    header = bytearray(struct.pack("<8sIIII", b"EFI PART", 0x10000, 92, 0, 0) + places)
    header += struct.pack("<I", zlib.crc32(entries))
    header[16:20] = struct.pack("<I", zlib.crc32(header))
    disk[512 : 512 + len(header)] = header
    disk[start + MiB : start + MiB + 8] = struct.pack("<II", 0xC001D00D, 5)
    return bytes(disk)


def rule_for(group: str) -> list[str]:
    """Our rule, with a group that exists on any Debian in place of ours."""
    text = RULE.read_text()
    assert 'GROUP="vcbproxy"' in text
    return text.replace('GROUP="vcbproxy"', f'GROUP="{group}"').splitlines()


def access(device: Path) -> tuple[str, int]:
    status = device.stat()
    return grp.getgrgid(status.st_gid).gr_name, stat.S_IMODE(status.st_mode)


@pytest.mark.root
@pytest.mark.xdist_group("udev")
@pytest.mark.parametrize("bare", [False, True], ids=["partitioned", "whole-lun"])
def test_udev_gives_vmfs_luns_to_the_group_and_closes_them_to_writers(tmp_path: Path, bare: bool) -> None:
    loops.need_root("partx", "blockdev")
    disk = gpt(8 * MiB, VMFS_PARTITION, MiB, 4 * MiB)
    image = tmp_path / "lun.img"
    image.write_bytes(disk[MiB:] if bare else disk)
    with loops.udev_rules(rule_for("backup")), loops.attached(image, read_only=False) as loop:
        loops.trigger(loop)
        assert access(loop) == ("backup", 0o440)
        [lun] = configured([ImageLun(loop)])
        assert lun.read_only
        # The kernel lets root open it for writing, and refuses the write: with EPERM.
        fd = os.open(loop, os.O_RDWR)
        try:
            with pytest.raises(OSError, match=os.strerror(errno.EPERM)):
                os.pwrite(fd, bytes(512), 0)
        finally:
            os.close(fd)
        if not bare:
            with loops.partition(loop, 1, 2048, 8192) as node:
                loops.trigger(node)
                assert access(node) == ("backup", 0o440)
                assert [info.content for info in configured([ImageLun(loop)])] == ["", "VMFS_volume_member"]


def documented_raw_rule(naa: str, group: str) -> list[str]:
    """The rule of docs/operating.md 3.3 for LUNs without VMFS, for a LUN and a group that are here."""
    page = (UNITS.parent / "docs" / "operating.md").read_text()
    rules = [line for line in page.splitlines() if line.startswith("ENV{") and "VCBPROXY_RAW" in line]
    assert len(rules) == 4
    assert ["600144f0000000000000000000000009" in rule for rule in rules] == [True, True, False, False]
    here = (rule.replace("600144f0000000000000000000000009", naa) for rule in rules)
    return [rule.replace('GROUP="vcbproxy"', f'GROUP="{group}"') for rule in here]


@pytest.mark.root
@pytest.mark.xdist_group("udev")
def test_the_documented_rule_closes_a_raw_lun_of_a_vm(tmp_path: Path) -> None:
    """It holds a guest's own file system, and nothing that the rule for datastores could know."""
    loops.need_root("partx", "blockdev")
    image, naa = tmp_path / "raw.img", "600144f0beef0000000000000000aaaa"
    image.write_bytes(gpt(8 * MiB, LINUX_PARTITION, MiB, 4 * MiB))
    loops.identify(image, naa, "RAW-1")
    rules = [*loops.identity_rules(tmp_path), *documented_raw_rule(naa, "backup")]
    with loops.udev_rules(rules), loops.attached(image, read_only=False) as loop:
        loops.trigger(loop)
        assert access(loop) == ("backup", 0o440)
        [lun] = configured([ImageLun(loop)])
        assert (lun.read_only, lun.wwn) == (True, naa)
        with loops.partition(loop, 1, 2048, 8192) as node:
            loops.trigger(node)
            assert access(node) == ("backup", 0o440), "no mount of it can replay a journal"


@pytest.mark.root
@pytest.mark.xdist_group("udev")
def test_udev_leaves_other_disks_alone(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    disk = bytearray(gpt(8 * MiB, LINUX_PARTITION, MiB, 4 * MiB))
    disk[2 * MiB : 2 * MiB + 8] = bytes(8)
    image.write_bytes(disk)
    with loops.udev_rules(rule_for("backup")), loops.attached(image, read_only=False) as loop:
        before = access(loop)
        loops.trigger(loop)
        assert access(loop) == before
        [lun] = configured([ImageLun(loop)])
        assert not lun.read_only
