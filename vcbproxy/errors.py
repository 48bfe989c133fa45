"""Every error of ours, by its consequence for the operator.

    Error                      1   something failed
    ├─ UsageError              2   the operator changes the command line
    │  └─ ConfigError          2   ... or the configuration; names file, key and remedy
    ├─ SourceError             1   this disk or VM fails, the others go on (the job is then partial)
    │  ├─ DeviceError              a LUN or image could not be read whole
    │  │  ├─ CannotOpen            ... or not even opened
    │  │  └─ Stalled               ... or did not answer: it hangs
    │  ├─ LvmError                 spans missing, wrong or damaged
    │  ├─ VmfsError                file system metadata unknown or damaged
    │  │  ├─ PathNotFound          no such file on the volume
    │  │  └─ Unreadable            recognised, and not readable this way (RDM, ...)
    │  ├─ VmdkError                descriptor, chain or sparse extent unknown or damaged
    │  ├─ BaseGone                 what its changes build upon was given up meanwhile: read again, all of it
    │  ├─ Changed                  what was read changed while we read it: read again
    │  │  ├─ Relocked              ... or only its lock changed hands; whoever knows that it was frozen may keep it
    │  │  ├─ Diverged              ... for good: the VM was reverted, a disk resized or taken away
    │  │  └─ Thawed                ... and nothing is frozen any more: our VM snapshot is gone
    │  └─ ManagerError             vCenter/ESXi refused, vanished or answered nonsense
    │     ├─ TaskFailed            a task of the manager ended in error
    │     ├─ ChangesUnknown        nobody can tell which areas of a disk changed: all of it has to be read
    │     └─ SnapshotLeft          a VM snapshot of ours is still there, or its links wait for consolidation
    ├─ TargetError             1   the repository could not be written: full, read-only, gone
    │  ├─ RepositoryMissing    10
    │  └─ CartridgeFailed      1   a cartridge could not be written; another one may do
    ├─ Partial                 3   some VM or disk failed or was skipped
    ├─ NothingProtected        1   zero VMs matched, or zero bytes came from a disk that has data
    ├─ IntegrityError          4   stored data are damaged or do not match: never retried
    ├─ Busy                    11  a lock is held: try later
    ├─ CartridgeWanted         14  a person puts a cartridge into the library
    └─ CredentialsError        12  wrong password, or login refused

    Cancelled                  130 interrupted by Ctrl-C: clean up, no alarm; no Error, nor even an Exception
    └─ Terminated              143 ... by SIGTERM

The facts an error was made of are its attributes (``error.facts``); the message is the class's template filled with
them, in one line, and says what to do next where there is something to do. Exit codes live on the classes; the table
in ``docs/exit-codes.md`` is checked against them by a test.
"""

from __future__ import annotations

from typing import ClassVar


class Error(Exception):
    """Something failed. The root of all errors that vcbproxy raises on purpose."""

    exit_code: ClassVar[int] = 1
    template: ClassVar[str] = "{message}"

    def __init__(self, message: str = "", **facts: object) -> None:
        """Keep the facts as attributes and fill the class's template with them.

        Args:
            message: the sentence itself, for classes whose template is ``{message}``.
            facts: named facts (device, offset, file, ...), readable as attributes.
        """
        self.facts = {"message": message, **facts} if message else dict(facts)
        super().__init__(self.template.format(**self.facts))

    def __getattr__(self, name: str) -> object:
        """Facts read as attributes: ``error.offset``."""
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(name)

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process boundaries whole."""
        return _rebuild, (type(self), self.facts)


def _rebuild(cls: type[Error], facts: dict[str, object]) -> Error:
    return cls(**facts)  # type: ignore[arg-type]  # "message" is one of the facts


class UsageError(Error):
    """The command line asks for something that cannot be."""

    exit_code = 2


class ConfigError(UsageError):
    """The configuration is missing or wrong; the message names file, key and remedy."""


class SourceError(Error):
    """A disk or VM could not be read. It fails, the others go on."""


class DeviceError(SourceError):
    """A LUN or image could not be read whole."""

    template = "{device}: cannot read {length} bytes at offset {offset}: {reason}"


class CannotOpen(DeviceError):
    """A LUN or image could not be opened."""

    template = "cannot open {device}: {reason}"


class Stalled(DeviceError):
    """A LUN or image neither answered nor failed."""

    template = (
        "{device}: no answer for {waited_s:.0f} s to a read of {length} bytes at offset {offset}: "
        "its paths or the array hang; see `multipath -ll` and `dmesg`"
    )


class LvmError(SourceError):
    """A VMFS volume's devices are missing, wrong or damaged."""

    template = "{device}: {reason}"


class VmfsError(SourceError):
    """File system metadata are unknown or damaged. ``offset`` is a byte offset in the volume."""

    template = "{volume}: {file}: {reason} (volume offset {offset:#x})"


class PathNotFound(VmfsError):
    """No such file or directory on the volume."""

    template = "{volume}: no such file: {file}"


class Unreadable(VmfsError):
    """Recognised for what it is, and not readable through the volume."""

    template = "{volume}: {file}: {reason}"


class VmdkError(SourceError):
    """A virtual disk's descriptor, chain or sparse extent is unknown or damaged."""

    template = "{file}: {reason}"


class BaseGone(SourceError):
    """What changes were written upon was given up meanwhile: they could never be restored."""

    template = "{base}, upon which the changes build, was given up meanwhile: back it up again"


class Changed(SourceError):
    """What was read changed while it was read; nothing of it may be kept."""

    template = "{file} changed while it was read: {reason}"


class Relocked(Changed):
    """A file's lock changed hands while it was read, without a writer, and nothing else of it changed.

    VMotion, DRS and HA do that to frozen files. Whoever does not know from elsewhere that the file was frozen all the
    time must take it for ``Changed``.
    """

    template = "{file}: its lock changed hands while it was read"


class Diverged(Changed):
    """The running VM did not go on from what was frozen; reading again would read the same."""

    template = "{file} changed while it was backed up: {reason}"


class Thawed(Changed):
    """The VM snapshot that was to be read is gone; nothing of the VM may be kept."""

    template = "{file} was not frozen to the end: {reason}; nothing of it is kept"


class ManagerError(SourceError):
    """The manager refused, vanished or answered nonsense."""


class TaskFailed(ManagerError):
    """A task of the manager ended in error."""

    template = "{task} of {entity} failed: {reason}"


class ChangesUnknown(ManagerError):
    """The manager cannot tell which areas of a disk changed, or tells what cannot be; ``cause`` says why."""

    template = "{disk}: what changed since is not known: {reason}"


class SnapshotLeft(ManagerError):
    """A VM snapshot of ours could not be removed, or its links not merged. ``stuck_in`` is the lifecycle's state."""


class TargetError(Error):
    """The repository could not be written: full, read-only, gone."""


class RepositoryMissing(TargetError):
    """There is no repository where one was expected."""

    exit_code = 10
    template = "no repository at {location}; create one with `vcbproxy repo init`"


class CartridgeFailed(TargetError):
    """A cartridge could not be written, or not read again as it was written. Another one may do."""


class Partial(Error):
    """Some VM or disk failed or was skipped; the rest is safe."""

    exit_code = 3


class NothingProtected(Error):
    """Nothing was protected: no VM matched, or no bytes came from a disk that has data."""


class IntegrityError(Error):
    """Stored data are damaged, or do not match what they should be. Never retried."""

    exit_code = 4


class Busy(Error):
    """Someone holds a lock that conflicts with ours; try later."""

    exit_code = 11


class CartridgeWanted(Error):
    """A cartridge has to be put into the library. ``barcodes``: those wanted, or any of those that would do."""

    exit_code = 14


class CredentialsError(Error):
    """A wrong password, or a login that was refused."""

    exit_code = 12


class Cancelled(BaseException):
    """Interrupted by the operator: clean up, raise no alarm.

    Like KeyboardInterrupt it is no Exception: a signal strikes anywhere, and whoever expects an error there (of a
    restore point that is checked, of a log-out) would otherwise take this for one, report damage, or go on.
    """

    exit_code: ClassVar[int] = 130
    template: ClassVar[str] = "interrupted"

    def __str__(self) -> str:
        """Say what happened."""
        return self.template


class Terminated(Cancelled):
    """Ended by SIGTERM."""

    exit_code = 143
    template = "terminated"
