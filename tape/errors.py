"""What can go wrong with tape, by what one does about it. ``tape`` stands alone: whoever uses it maps these to its own.

    TapeError
    ├─ TransportError     the command did not reach the device, or its answer did not come back
    ├─ NotReady           no cartridge, becoming ready, door open: wait, load, or ask a person
    │  └─ NoMedium
    ├─ UnitAttention      something happened since the last command
    │  ├─ MediumChanged   there may be another cartridge now: whatever was known of it is void
    │  └─ PositionLost    a reset, and the tape no longer stands where it stood: writing on would destroy
    ├─ MediumError        this place of this cartridge cannot be read or written any more
    ├─ HardwareError      the drive or robot is broken
    ├─ RefusedCommand     illegal request: a bug of ours, or a device that cannot do this
    │  └─ RemovalPrevented
    ├─ WriteProtected     by tab, by WORM, by the drive
    ├─ VolumeOverflow     the physical end: the block was not written
    ├─ EndOfData          nothing is recorded here
    ├─ Reserved           another host holds the device
    └─ FormatError        what is recorded is not what the format prescribes
       └─ Inconsistent    a volume whose last writer did not finish: `recover` rolls it back

Facts are attributes, the message is one line that names device and place.
"""

from __future__ import annotations

from typing import ClassVar


class TapeError(Exception):
    """The root of all that this package raises on purpose."""

    template: ClassVar[str] = "{message}"

    def __init__(self, message: str = "", **facts: object) -> None:
        """Keep the facts and fill the class's template with them.

        Args:
            message: the sentence itself, for classes whose template is ``{message}``.
            facts: named facts (device, partition, block, ...), readable as attributes.
        """
        self.facts = {"message": message, **facts} if message else dict(facts)
        super().__init__(self.template.format(**self.facts))

    def __getattr__(self, name: str) -> object:
        """Facts read as attributes: ``error.block``."""
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(name)


class TransportError(TapeError):
    """The command did not get through; nobody knows whether it was carried out."""

    template = "{device}: {command} did not get through: {reason}"


class DeviceFailure(TapeError):
    """The device answered with sense data. ``key``, ``asc`` and ``ascq`` are those of SPC."""

    template = "{device}: {command}: {reason} (sense {key:X}/{asc:02X}/{ascq:02X})"


class NotReady(DeviceFailure):
    """It cannot work now, and may later."""


class NoMedium(NotReady):
    """No cartridge is loaded."""


class UnitAttention(DeviceFailure):
    """Something happened to the device since the last command; this one was not carried out."""


class MediumChanged(UnitAttention):
    """There may be another cartridge in it now."""


class PositionLost(TapeError):
    """After a reset the tape does not stand where it stood; nothing may be written before it is found again."""

    template = "{device}: after a reset the tape stands at {found}, not at {expected}; nothing more is written"


class MediumError(DeviceFailure):
    """This place of the cartridge cannot be read, or not be written."""


class HardwareError(DeviceFailure):
    """The device is broken."""


class RefusedCommand(DeviceFailure):
    """The device does not do this, or not now."""


class RemovalPrevented(RefusedCommand):
    """Something holds the cartridge in the drive."""


class WriteProtected(DeviceFailure):
    """The cartridge takes no more writing."""


class VolumeOverflow(DeviceFailure):
    """The end of the partition: the block was not written."""


class EndOfData(DeviceFailure):
    """Nothing is recorded behind this place."""


class Reserved(TapeError):
    """Another host has reserved the device."""

    template = "{device}: reserved by another host; release it there first"


class FormatError(TapeError):
    """What is recorded does not follow the format."""

    template = "{where}: {reason}"


class Inconsistent(FormatError):
    """The volume's last writer did not finish; what it had committed before is whole."""
