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
    │  ├─ RemovalPrevented
    │  ├─ SourceEmpty      nothing lies where the robot was to take it from: look again
    │  └─ DestinationFull  something lies where the robot was to put it: look again
    ├─ WriteProtected     by tab, by WORM, by the drive
    ├─ KeyWanted          encrypted by a drive, with a key that this drive was not given
    ├─ CannotEncrypt      the drive has no encryption that a host may use
    ├─ EncryptionLost     the drive ceased to encrypt: nothing more may be written
    ├─ JournalFailed      what is written cannot be noted on this host: what a crash would cost
    ├─ VerifyFailed       what was read again is not what was written: it is to be written again
    ├─ FilesLost          a write error took files that were finished: they are to be written again, elsewhere
    ├─ VolumeOverflow     the physical end: the block was not written
    ├─ EndOfData          nothing is recorded here
    ├─ Reserved           another host holds the device
    ├─ InUse              another program on this host does, or another thread of this one
    ├─ LibraryError       the library is not as one thought
    │  ├─ CartridgeMissing   not in it: a person puts it in
    │  ├─ WrongCartridge     its memory says that it is not the one of its label
    │  ├─ MoveFailed         a cartridge was not carried; where it lies now is said, if that could be seen
    │  └─ LibraryChanged     somebody has moved cartridges by hand
    └─ FormatError        what is recorded is not what the format prescribes
       ├─ IncrementalIndex  an index of LTFS 2.5 that only says what changed: its own program has to finish the volume
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

    template = "{device}: the tape stands at {found}, not at {expected}, as after a reset; nothing more is written"


class MediumError(DeviceFailure):
    """This place of the cartridge cannot be read, or not be written."""


class HardwareError(DeviceFailure):
    """The device is broken."""


class RefusedCommand(DeviceFailure):
    """The device does not do this, or not now."""


class RemovalPrevented(RefusedCommand):
    """Something holds the cartridge in the drive."""


class SourceEmpty(RefusedCommand):
    """Nothing lies where the robot was to take a cartridge from."""


class DestinationFull(RefusedCommand):
    """A cartridge lies where the robot was to put one."""


class WriteProtected(DeviceFailure):
    """The cartridge takes no more writing."""


class KeyWanted(DeviceFailure):
    """What lies here was encrypted by a drive, and this one has no key for it, or another."""


class CannotEncrypt(TapeError):
    """The drive cannot encrypt, or not by a key of ours."""

    template = "{device}: {reason}"


class EncryptionLost(TapeError):
    """The drive does not encrypt as it was told to."""

    template = "{device}: {reason}"


class JournalFailed(TapeError):
    """The journal of what is written to a volume cannot be kept or read: a crash would cost what is not yet safe."""

    template = "{path}: the journal of what is written to tape: {reason}"


class VerifyFailed(TapeError):
    """What was read again after writing is not what was written. The file is taken out of the index."""

    template = "{path}, {block}: {reason}; the file is not kept, write it again"


class FilesLost(TapeError):
    """A write error took files that were finished, but not yet safe. The volume takes no more writing."""

    template = "{where}: a write error took {count} files: {paths}; write them again, to another cartridge"


class VolumeOverflow(DeviceFailure):
    """The end of the partition: the block was not written."""


class EndOfData(DeviceFailure):
    """Nothing is recorded behind this place."""


class Reserved(TapeError):
    """Another host has reserved the device."""

    template = "{device}: reserved by {holder}; release it there first"


class InUse(TapeError):
    """Somebody else on this host works with it."""

    template = "{device} is in use by {holder}; wait until that is done, or stop it"


class LibraryError(TapeError):
    """The library is not as one thought, or cannot do what was asked of it."""


class CartridgeMissing(LibraryError):
    """No such label is in the library."""

    template = "cartridge {barcode} is not in the library"


class WrongCartridge(LibraryError):
    """A cartridge that says of itself that it is another one than its label says; nothing was done with it."""

    template = "the cartridge labelled {barcode} says of itself that it is {memory}: its label is wrong, or was swapped"


class MoveFailed(LibraryError):
    """A cartridge was not carried where it should be; the error behind this one says why."""

    template = "{library}: {cartridge} was not carried from {source} to {destination}: {reason}; {now}"


class LibraryChanged(LibraryError):
    """Cartridges were moved by hand since they were looked at; nothing was carried."""

    template = "{library}: cartridges were moved by hand: {what}; look at the inventory, and ask again"


class FormatError(TapeError):
    """What is recorded does not follow the format."""

    template = "{where}: {reason}"


class Inconsistent(FormatError):
    """The volume's last writer did not finish; what it had committed before is whole."""


class IncrementalIndex(FormatError):
    """An index that only says what changed since another one: LTFS 2.5 may write such while a volume is mounted."""
