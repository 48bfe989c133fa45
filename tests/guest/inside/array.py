"""A storage array: tgtd in a network of its own, at the other ends of two cables, with LUNs that are files.

            ┌── cable 1 ── 10.1.0.1 ═══ 10.1.0.2 ──┐
     proxy ─┤                                      ├─ array (network namespace) ── tgtd ── LUN 1, 2, … ── files
            └── cable 2 ── 10.2.0.1 ═══ 10.2.0.2 ──┘

A cable that is pulled is a link without carrier: what was sent is lost, nobody is told, as in a machine room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.guest.inside.commands import call, wait_until

TARGET = "iqn.2026-01.example:array"
CABLES = (1, 2)

# tgt lun sid | rd_subm(bytes,cmds) rd_done(bytes,cmds) wr_subm(bytes,cmds) wr_done(bytes,cmds) errs
_WRITES_SUBMITTED = 5


@dataclass(frozen=True, slots=True)
class ArrayLun:
    """A file that the array shows as a LUN of this NAA name (32 hex digits)."""

    file: Path
    naa_hex: str


def portal(cable: int) -> str:
    return f"10.{cable}.0.2"


def start(luns: Sequence[ArrayLun]) -> None:
    """Lay the cables, start the array, show its LUNs to everyone, writable: whether anyone writes is what we watch."""
    call("ip", "netns", "add", "array")
    for cable in CABLES:
        call("ip", "link", "add", f"cable{cable}", "type", "veth", "peer", "name", f"port{cable}", "netns", "array")
        call("ip", "address", "add", f"10.{cable}.0.1/24", "dev", f"cable{cable}")
        call("ip", "-n", "array", "address", "add", f"{portal(cable)}/24", "dev", f"port{cable}")
        call("ip", "-n", "array", "link", "set", f"port{cable}", "up")
        call("ip", "link", "set", f"cable{cable}", "up")
    call("ip", "netns", "exec", "array", "tgtd")
    wait_until(lambda: Path("/var/run/tgtd/socket.0").exists(), "tgtd")
    _admin("target", "new", "-T", TARGET)
    for number, lun in enumerate(luns, 1):
        _admin("logicalunit", "new", "--lun", number, "-b", lun.file)
        identity = f"vendor_id=EXAMPLE,product_id=ARRAY,scsi_sn=LUN{number:04},scsi_id=3{lun.naa_hex}"
        _admin("logicalunit", "update", "--lun", number, "--params", identity)
    _admin("target", "bind", "-I", "ALL")


def _admin(mode: str, operation: str, *options: object) -> str:
    return call("tgtadm", "--mode", mode, "--op", operation, "--tid", 1, *options)


def pull(*cables: int) -> None:
    for cable in cables:
        call("ip", "-n", "array", "link", "set", f"port{cable}", "down")


def plug(*cables: int) -> None:
    for cable in cables:
        call("ip", "-n", "array", "link", "set", f"port{cable}", "up")


def commands_that_wrote() -> dict[int, int]:
    """For each LUN, how many commands brought data to it, as the array itself counted (tgtadm(8), --op stat)."""
    counts: dict[int, int] = {}
    for row in _admin("target", "stat").splitlines()[1:]:
        _, lun, _, *numbers = map(int, row.split())
        counts[lun] = counts.get(lun, 0) + numbers[_WRITES_SUBMITTED]
    return counts
