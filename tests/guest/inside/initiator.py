"""The proxy's side of the SAN: udev, iSCSI and multipath, set up as docs/operating.md says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.guest.inside import array
from tests.guest.inside.commands import call

TREE = Path(__file__).resolve().parents[3]
_DRIVERS = ("sg", "sd_mod", "iscsi_tcp", "dm_multipath", "dm_service_time", "scsi_dh_alua", "veth")

# Dead paths are noticed in seconds instead of half a minute; all else is as documented.
_HASTE = "    polling_interval 1\n    fast_io_fail_tmo 2\n"
_ISCSI = {
    "node.startup": "manual",
    "node.conn[0].timeo.noop_out_interval": "2",
    "node.conn[0].timeo.noop_out_timeout": "5",
    "node.session.timeo.replacement_timeout": "2",
}


def documented_multipath() -> str:
    """The configuration that docs/operating.md tells people to write."""
    text = (TREE / "docs/operating.md").read_text("utf-8")
    match = re.search(r"# /etc/multipath.conf\n(defaults \{.*?\n)\}.*?\n```", text, re.DOTALL)
    assert match is not None, "docs/operating.md shows no /etc/multipath.conf"
    return f"{match[1]}{_HASTE}}}\n"


def start_udev() -> None:
    call("modprobe", "--all", *_DRIVERS)
    Path("/run/udev").mkdir(exist_ok=True)
    Path("/run/lock").mkdir(exist_ok=True)
    rules = Path("/etc/udev/rules.d")
    rules.mkdir(parents=True, exist_ok=True)
    (rules / "60-vcbproxy.rules").write_bytes((TREE / "systemd/60-vcbproxy.rules").read_bytes())
    call("groupadd", "--system", "vcbproxy")
    call("/lib/systemd/systemd-udevd", "--daemon")
    call("udevadm", "trigger", "--subsystem-match=block")
    call("udevadm", "settle")


def start_multipath() -> None:
    Path("/etc/multipath.conf").write_text(documented_multipath())
    call("multipathd")


def log_in() -> None:
    """One session over each cable."""
    etc = Path("/etc/iscsi")
    etc.mkdir(exist_ok=True)
    (etc / "initiatorname.iscsi").write_text("InitiatorName=iqn.2026-01.example:proxy\n")
    (etc / "iscsid.conf").write_text("".join(f"{key} = {value}\n" for key, value in _ISCSI.items()))
    call("iscsid")
    for cable in array.CABLES:
        call("iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", array.portal(cable))
    call("iscsiadm", "-m", "node", "-T", array.TARGET, "--login")


def map_of(naa_hex: str) -> Path | None:
    """The sysfs directory of the LUN's multipath map."""
    for folder in Path("/sys/block").glob("dm-*"):
        if (folder / "dm/uuid").read_text().strip() == f"mpath-3{naa_hex}":
            return folder
    return None


def paths_in_service(naa_hex: str) -> int:
    """How many of the map's paths multipathd holds to be usable."""
    rows = multipathd('show paths raw format "%w %t %o %T"').splitlines()
    return sum(row.split()[:4] == [f"3{naa_hex}", "active", "running", "ready"] for row in rows)


def multipathd(question: str) -> str:
    done = subprocess.run(["multipathd", "-k" + question], capture_output=True, text=True, check=False, timeout=30)
    return done.stdout
