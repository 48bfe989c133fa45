"""What a restore point looks like on its cartridges.

    TAP001L8   /web01/20261127T010000Z/scsi0-0.raw.zst          the disk's image, or the first part of it
                                       vm.json                  what is known so far: "continues"
                                       RESTORE.txt SHA256SUMS
    TAP002L8   /web01/20261127T010000Z/scsi0-0.raw.zst.part2    …goes on; `cat` joins them
                                       scsi0-1.raw.zst
                                       web01.vmx web01.nvram
                                       vm.json                  "whole": everything, wherever it lies
                                       RESTORE.txt SHA256SUMS

Names have no colon, so that they are the same on every system. What each file belongs to stands in an attribute of it,
too: a cartridge whose end came too soon for its ``vm.json`` still says what lies on it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime

VM_JSON = "vm.json"
SUMS = "SHA256SUMS"
RESTORE = "RESTORE.txt"
MARK = "vcbproxy"
"""The attribute that says what a file belongs to; JSON."""
AGE = ".age"
"""What the names of encrypted images end with."""
DIGEST = "ltfs.hash.sha256sum"

_UNSAFE = re.compile(r'[/\x00-\x1f\x7f<>:"\\|?*]')
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d) *(\.|$)", re.IGNORECASE)  # with any extension: Windows opens them
_NAME_MAX = 200


def folder(vm: str, time: datetime) -> str:
    """The folder of a restore point, from the volume's root."""
    return f"/{safe_name(vm)}/{time.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def safe_name(name: str) -> str:
    """A name that every system bears; what it does not bear becomes ``_``. The true one is in ``vm.json``."""
    safe = _UNSAFE.sub("_", name)
    if not safe.strip(" .") or _DEVICE.match(safe):
        safe = f"_{safe}"
    return safe[:_NAME_MAX].rstrip(" .")


def part_name(file: str, number: int) -> str:
    """What a part of a file is called: the first like the file itself."""
    return file if number == 1 else f"{file}.part{number}"


@dataclass(frozen=True, slots=True)
class Mark:
    """What a file on a cartridge belongs to.

    Attributes:
        point: the restore point's id.
        file: what all parts together are called.
        number: which of them, from 1.
    """

    point: str
    file: str
    number: int

    def encode(self) -> bytes:
        """As the attribute has it."""
        return json.dumps({"point": self.point, "file": self.file, "part": self.number}).encode()

    @classmethod
    def decode(cls, data: bytes | None) -> Mark | None:
        """None: there is none, or it is none of ours."""
        try:
            value = json.loads(data or b"null")
            return cls(str(value["point"]), str(value["file"]), int(value["part"]))
        except (ValueError, KeyError, TypeError):
            return None
