"""Names that must be unique and yet the same for one seed: UUIDs, generations, NAA names."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

from vcbproxy.lab.vmfs.spec import VolumeSpec


@dataclass(frozen=True, slots=True)
class Uuid:
    """VMware's 16-byte UUID: two words of time, two random bytes, a MAC address."""

    raw: bytes

    def __str__(self) -> str:
        low, high, chance = struct.unpack_from("<IIH", self.raw)
        return f"{low:08x}-{high:08x}-{chance:04x}-{self.raw[10:].hex()}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a volume and its devices are."""

    volume: Uuid
    """What /vmfs/volumes shows."""
    lvm: Uuid
    host: Uuid
    devices: tuple[Uuid, ...]
    wwns: tuple[str, ...]
    """Bare NAA hex, one a device."""


def invent(spec: VolumeSpec, devices: int, created_s: int) -> Identity:
    """Make the names that a spec leaves open, always the same for one seed and time."""
    chance = random.Random(f"{spec.seed}/{spec.label}/{spec.version}")
    mac = bytes.fromhex("005056") + chance.randbytes(3)

    def uuid() -> Uuid:
        return Uuid(struct.pack("<IIH", created_s, chance.getrandbits(32), chance.getrandbits(16)) + mac)

    wwns = tuple(_bare(wwn) for wwn in spec.wwns) or tuple(
        f"6001405{chance.getrandbits(100):025x}" for _ in range(devices)
    )
    return Identity(uuid(), uuid(), uuid(), tuple(uuid() for _ in range(devices)), wwns)


def _bare(wwn: str) -> str:
    return wwn.lower().removeprefix("naa.").removeprefix("0x")


def mapped_id(wwn: str, model: bytes) -> bytes:
    """The same as a raw device mapping has it: an NAA name, and six bytes of the model behind it."""
    name = bytes.fromhex(_bare(wwn)) + model
    return struct.pack("<BBHBB8s16s4s44s", 2, len(name), 0, 0, 6, b"LAB", b"Virtual LUN", b"1.0", name)


def disk_id(wwn: str, lun: int) -> bytes:
    """The 78-byte SCSI disk id by which hosts tell a LUN from its snapshot copy."""
    name = bytes.fromhex(wwn) if len(wwn) % 2 == 0 and set(wwn) <= set("0123456789abcdef") else wwn.encode()
    return struct.pack("<BBHBB8s16s4s44s", 1, len(name), lun, 0, 6, b"LAB", b"Virtual LUN", b"1.0", name[:44])
