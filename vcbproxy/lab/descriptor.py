"""The text files beside a disk: VMDK descriptors, and the VM's own .vmx, .vmsd, .vmxf as a host writes them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vcbproxy.units import SECTOR

NO_PARENT = "ffffffff"


class ExtentKind(Enum):
    """The kinds of link in a chain: what the descriptor calls them, and what lies behind."""

    FLAT = "flat"
    COWD = "cowd"
    SESPARSE = "sesparse"
    RDM = "rdm"
    RDMP = "rdmp"

    @property
    def is_base(self) -> bool:
        """Whether it holds the whole disk, in place: a flat file or a whole LUN."""
        return self not in (ExtentKind.COWD, ExtentKind.SESPARSE)

    @property
    def is_raw(self) -> bool:
        """Whether its bytes lie on a LUN of their own; the file beside it only says on which."""
        return self in (ExtentKind.RDM, ExtentKind.RDMP)


_CREATE_TYPE = {
    ExtentKind.FLAT: "vmfs",
    ExtentKind.COWD: "vmfsSparse",
    ExtentKind.SESPARSE: "seSparse",
    ExtentKind.RDM: "vmfsRawDeviceMap",
    ExtentKind.RDMP: "vmfsPassthroughRawDeviceMap",
}
_EXTENT_TYPE = {
    ExtentKind.FLAT: "VMFS",
    ExtentKind.COWD: "VMFSSPARSE",
    ExtentKind.SESPARSE: "SESPARSE",
    ExtentKind.RDM: "VMFSRDM",
    ExtentKind.RDMP: "VMFSRDM",
}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a descriptor says."""

    kind: ExtentKind
    extent_name: str
    capacity_bytes: int
    cid: str
    parent_cid: str = NO_PARENT
    parent_hint: str = ""
    uuid: bytes = b""
    thin: bool = False
    track_name: str = ""

    def text(self) -> str:
        """As a host writes it."""
        sectors = self.capacity_bytes // SECTOR
        parent = f'parentFileNameHint="{self.parent_hint}"\n' if self.parent_hint else ""
        track = f'# Change Tracking File\nchangeTrackPath="{self.track_name}"\n\n' if self.track_name else ""
        return (
            "# Disk DescriptorFile\n"
            "version=1\n"
            'encoding="UTF-8"\n'
            f"CID={self.cid}\n"
            f"parentCID={self.parent_cid}\n"
            f'createType="{_CREATE_TYPE[self.kind]}"\n'
            f"{parent}"
            "# Extent description\n"
            f'RW {sectors} {_EXTENT_TYPE[self.kind]} "{self.extent_name}"\n'
            "\n"
            f"{track}"
            "# The Disk Data Base \n"
            "#DDB\n"
            "\n" + "".join(f'ddb.{key} = "{value}"\n' for key, value in self._database().items())
        )

    def _database(self) -> dict[str, str]:
        if not self.kind.is_base:
            return {"longContentID": self.cid.rjust(32, "0")}
        facts = {
            "adapterType": "lsilogic",
            "geometry.cylinders": str(max(1, self.capacity_bytes // SECTOR // (255 * 63))),
            "geometry.heads": "255",
            "geometry.sectors": "63",
            "longContentID": self.cid.rjust(32, "0"),
        }
        if self.thin:
            facts["thinProvisioned"] = "1"
        pairs = [f"{byte:02x}" for byte in self.uuid]
        if pairs:
            facts["uuid"] = " ".join(pairs[:8]) + "-" + " ".join(pairs[8:])
        return facts | {"virtualHWVersion": "13"}


def settings(pairs: dict[str, str]) -> str:
    """A .vmx or .vmsd: one ``key = "value"`` a line."""
    return '.encoding = "UTF-8"\n' + "".join(f'{key} = "{_escaped(value)}"\n' for key, value in pairs.items())


def _escaped(value: str) -> str:
    """Quotes, bars and control characters are written as ``|`` and two hex digits."""
    return "".join(f"|{ord(char):02X}" if char in '"|' or char < " " else char for char in value)


def vmxf(name: str) -> str:
    """The extended configuration: XML that nobody reads, and everybody must keep."""
    return f'<?xml version="1.0"?>\n<Foundry>\n<VM>\n<VMId type="string">{name}</VMId>\n</VM>\n</Foundry>\n'
