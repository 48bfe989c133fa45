"""Tells, with a few reads, what VMFS volume a device is part of; and sorts many devices into volumes.

In: devices as they are found, strangers among them. Out: ``Member`` for one device, ``VolumeSet`` for each volume,
complete or with its missing parts named. Promised: a device that only looks like VMFS, or that cannot be read,
never hides the others.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vcbproxy.device import Device, Slice
from vcbproxy.errors import SourceError
from vcbproxy.vmfs import c_lvm, descriptor, lvm, span


@dataclass(frozen=True, slots=True)
class Member:
    """One device of a volume, as far as its own headers tell. Positions are in bytes of the volume."""

    device: Device
    partition_offset: int
    device_uuid: str
    lvm_uuid: str
    lvm_major: int
    volume_size_bytes: int
    devices: int  # how many the volume has
    first_byte: int  # what part of the volume lies here
    end_byte: int
    label: str  # only the first device of a volume knows it; "" on the others
    uuid: str  # of the file system; the same holds
    version: str
    local: bool
    device_names: tuple[str, ...] = ()  # of the volume's devices, in its order, as the first device has them

    @property
    def is_first(self) -> bool:
        """Whether the volume starts on this device."""
        return self.first_byte == 0


@dataclass(frozen=True, slots=True)
class VolumeSet:
    """A volume and those of its devices that were found, in the volume's order."""

    lvm_uuid: str
    uuid: str
    label: str
    version: str
    size_bytes: int
    members: tuple[Member, ...]
    duplicates: tuple[Member, ...]  # further paths to, or copies of, one of the members
    devices: int

    @property
    def device_names(self) -> tuple[str, ...]:
        """What the hosts call its devices, in order, where its first device says."""
        return self.members[0].device_names

    @property
    def missing_names(self) -> tuple[str, ...]:
        """What the hosts call the missing devices, as far as that can be told."""
        positions = span.missing_positions(self._covered, self.devices, self.size_bytes)
        names = dict(enumerate(self.device_names, 1))
        return tuple(names[position] for position in positions if names.get(position))

    @property
    def _covered(self) -> list[tuple[int, int]]:
        return [(member.first_byte, member.end_byte) for member in self.members]

    @property
    def missing(self) -> int:
        """How many devices are missing."""
        return max(0, self.devices - len(self.members))

    @property
    def missing_text(self) -> str:
        """``device 2 of 3 is missing``; empty when nothing is."""
        if not self.missing:
            return ""
        return span.missing_text(self._covered, self.devices, self.size_bytes)


def probe(device: Device) -> Member | None:
    """What volume a device is part of; None when of none. Looks at no more than headers.

    Raises:
        SourceError: it cannot be read, or its header is of an unknown kind.
    """
    found = lvm.find(device)
    if found is not None:
        return _member(found)
    if descriptor.present(device):
        fs = descriptor.load(device)
        return Member(
            device=device,
            partition_offset=0,
            device_uuid="",
            lvm_uuid=fs.lv_uuid,
            lvm_major=0,
            volume_size_bytes=device.size_bytes,
            devices=1,
            first_byte=0,
            end_byte=device.size_bytes,
            label=fs.label,
            uuid=fs.uuid,
            version=fs.version,
            local=fs.local,
        )
    return None


def all_on(device: Device) -> list[Member]:
    """As ``probe``, and behind it what lies in further VMFS partitions; those hide the first one in no case.

    Raises:
        SourceError: as for ``probe``, of the first.
    """
    first = probe(device)
    found = [] if first is None else [first]
    with contextlib.suppress(SourceError):
        found += [_member(more) for more in itertools.islice(lvm.members(device), 1, None)]
    return found


def _member(found: lvm.Member) -> Member:
    label = uuid = version = ""
    local = False
    fs = _file_system(found)
    if fs is not None:
        label, uuid, version, local = fs.label, fs.uuid, fs.version, fs.local
    return Member(
        device=found.device,
        partition_offset=found.start,
        device_uuid=found.device_uuid,
        lvm_uuid=found.volume_uuid,
        lvm_major=found.major,
        volume_size_bytes=found.volume_size_bytes,
        devices=found.devices,
        first_byte=found.pe_first * c_lvm.LVM_PE_SIZE,
        end_byte=(found.pe_last + 1) * c_lvm.LVM_PE_SIZE,
        label=label,
        uuid=uuid,
        version=version,
        local=local,
        device_names=lvm.device_names(found),
    )


def _file_system(found: lvm.Member) -> descriptor.FileSystem | None:
    """The descriptor of the volume that starts on this device, read through the first entry of its PE table."""
    start = lvm.first_extent(found) if found.pe_first == 0 else None
    if start is None or start >= found.device.size_bytes:
        return None
    inside = Slice(found.device, start, found.device.size_bytes - start)
    return descriptor.load(inside) if descriptor.present(inside) else None


def assemble(devices: Iterable[Device]) -> list[VolumeSet]:
    """Sort devices into volumes, by label. Devices without VMFS, or that cannot be told, are left out.

    Use ``probe`` on a single device to learn what is wrong with it.
    """
    return volumes_of(member for device in devices if (member := _quietly(device)) is not None)


def volumes_of(members: Iterable[Member]) -> list[VolumeSet]:
    """Sort what was probed into volumes, by label; nothing is read again."""
    volumes: dict[str, list[Member]] = {}
    for member in members:
        volumes.setdefault(member.lvm_uuid, []).append(member)
    return sorted((_volume_set(found) for found in volumes.values()), key=lambda found: (found.label, found.lvm_uuid))


def _quietly(device: Device) -> Member | None:
    try:
        return probe(device)
    except SourceError:
        return None  # a LUN that is not ours to judge; the ones we look for are named by whoever misses them


def _volume_set(found: Sequence[Member]) -> VolumeSet:
    members: list[Member] = []
    duplicates: list[Member] = []
    for member in sorted(found, key=lambda member: member.first_byte):
        twin = members and members[-1].first_byte == member.first_byte
        (duplicates if twin else members).append(member)
    first = members[0]
    return VolumeSet(
        lvm_uuid=first.lvm_uuid,
        uuid=first.uuid,
        label=first.label,
        version=first.version,
        size_bytes=first.volume_size_bytes,
        members=tuple(members),
        duplicates=tuple(duplicates),
        devices=max(member.devices for member in members),
    )
