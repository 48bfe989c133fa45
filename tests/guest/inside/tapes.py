"""The proxy's side of a tape library: network, iSCSI, the kernel's drivers, and udev as on any Debian."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from tests.guest.inside.commands import call, wait_until

HOST = "10.0.2.2"  # QEMU's word for the loopback interface of the machine that it runs on
_ADDRESS = "10.0.2.15/24"
_RULES = ("50-udev-default", "60-persistent-storage-tape", "80-drivers")
_NODES = ("sg0", "sg1", "sg2", "nst0", "nst1", "sch0")


def settings(out: Path) -> dict[str, Any]:
    """What the test that booted this guest has to say."""
    found: dict[str, Any] = json.loads((out / "settings.json").read_text())
    return found


def start_network() -> None:
    call("modprobe", "virtio_net")
    wait_until(_cards, "a network card")
    [card] = _cards()
    call("ip", "address", "add", _ADDRESS, "dev", card)
    call("ip", "link", "set", card, "up")


def _cards() -> list[str]:
    return [entry.name for entry in Path("/sys/class/net").iterdir() if entry.name != "lo"]


def start_udev() -> None:
    """With Debian's own rules for tapes, and none of the others, which would only cost time."""
    call("modprobe", "--all", "sg", "st", "ch", "iscsi_tcp")
    Path("/run/udev").mkdir(exist_ok=True)
    Path("/run/lock").mkdir(exist_ok=True)
    call("/lib/systemd/systemd-udevd", "--daemon")


def log_in(target: str, port: int) -> None:
    """One session, without discovery: it would answer with an address that only the host has."""
    etc = Path("/etc/iscsi")
    etc.mkdir(exist_ok=True)
    (etc / "initiatorname.iscsi").write_text("InitiatorName=iqn.2026-01.example:proxy\n")
    # No pings: on a busy host their answers may take longer than a session is given.
    pings = "".join(f"node.conn[0].timeo.noop_out_{what} = 0\n" for what in ("interval", "timeout"))
    (etc / "iscsid.conf").write_text(f"node.startup = manual\n{pings}")
    call("iscsid")
    node = ("iscsiadm", "--mode", "node", "--targetname", target, "--portal", f"{HOST}:{port}")
    call(*node, "--op", "new")
    call(*node, "--login")
    wait_until(lambda: all((Path("/dev") / name).exists() for name in _NODES), "the library's device nodes")
    call("udevadm", "settle")


class Hands:
    """Asks the host to do something to the library that no command can."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=30)
        self._answers = self._socket.makefile("r")

    def do(self, deed: str) -> str:
        """Have it done; what came of it.

        Raises:
            AssertionError: it could not be done.
        """
        self._socket.sendall(f"{deed}\n".encode())
        answer = self._answers.readline().strip()
        assert answer.startswith("done"), answer
        return answer.removeprefix("done").strip()
