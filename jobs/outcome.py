"""What became of a job run: per disk, per VM and in all, and which exit code that deserves.

Nothing is OK when no VM matched, when a disk was skipped, or when nothing was read from a disk that has data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from vcbproxy.errors import Error, NothingProtected, Partial


class Outcome(Enum):
    """How well it went."""

    OK = "ok"
    ALARM = "alarm"
    """Backed up well, and found out that earlier restore points cannot be relied upon."""
    PARTIAL = "partial"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What came of reading some of what did not change, it is said.

    Attributes:
        seed: draws the same sample again.
        chunks: how many were read.
        bytes_read: how much that was.
        differing: where chunks begin that did change; none, or it was a lie.
    """

    seed: int
    chunks: int
    bytes_read: int
    differing: tuple[int, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For manifests and output."""
        return {**asdict(self), "differing": list(self.differing)}


@dataclass(frozen=True, slots=True)
class DiskResult:
    """One disk that was copied, or the reason why it was not.

    Attributes:
        bytes_read: bytes read from the LUNs; the rest of ``size_bytes`` is known to be zero, or unchanged.
        bytes_stored: how much the repository grew by it, compressed.
        attempts: how often it was read from its start.
        method: ``full`` or ``incremental``; None when it was not copied.
        base: the restore point that an incremental grew out of.
        full_because: why it was read whole, where an incremental was wanted.
        bytes_changed: how much the manager said had changed.
        audit: what came of looking whether that was all.
    """

    key: str
    size_bytes: int
    bytes_read: int = 0
    bytes_stored: int = 0
    attempts: int = 1
    error: str | None = None
    method: str | None = None
    base: str | None = None
    full_because: str | None = None
    bytes_changed: int | None = None
    audit: AuditResult | None = None


@dataclass(frozen=True, slots=True)
class VmResult:
    """One VM: its restore point when there is one, and all that went wrong.

    Attributes:
        point: id of the restore point, None when nothing was committed.
        quiesced: whether the guest came to rest for the snapshot.
        snapshot_left: why our VM snapshot could not be removed; None when it is gone.
        suspects: names of earlier restore points that an audit found not to be relied upon.
        media: on which cartridges it is, and how fast it came there; None in a repository.
    """

    vm: str
    outcome: Outcome
    disks: tuple[DiskResult, ...] = ()
    point: str | None = None
    quiesced: bool | None = None
    snapshot_left: str | None = None
    error: Error | None = None
    warnings: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()
    media: Mapping[str, Any] | None = None
    seconds: float = 0.0

    @property
    def only_snapshot_left(self) -> bool:
        """Whether every disk is safe, and all that is known to be wrong is that our VM snapshot is still there."""
        kept = self.outcome is Outcome.PARTIAL and all(disk.error is None for disk in self.disks)
        return kept and self.snapshot_left is not None


@dataclass(frozen=True, slots=True)
class Report:
    """A whole job run."""

    results: tuple[VmResult, ...]

    @property
    def outcome(self) -> Outcome:
        """OK only when every VM is, and there was one."""
        outcomes = {result.outcome for result in self.results}
        if outcomes and outcomes <= {Outcome.OK, Outcome.ALARM}:
            return Outcome.ALARM if Outcome.ALARM in outcomes else Outcome.OK
        if not outcomes or outcomes == {Outcome.FAILED}:
            return Outcome.FAILED
        return Outcome.PARTIAL

    def raise_unless_ok(self) -> None:
        """Turn anything but success into the error that has its exit code.

        Raises:
            NothingProtected: there was no VM.
            Partial: some VM or disk failed, the rest is safe.
            Error: all failed; with a single VM, its own error.
        """
        if not self.results:
            raise NothingProtected("no virtual machine matched: nothing was protected")
        if self.outcome is Outcome.OK:
            return
        bad = [result for result in self.results if result.outcome is not Outcome.OK]
        if self.outcome is Outcome.ALARM:
            raise Partial(
                f"all was backed up, but change tracking had lied about {_names(bad)}: earlier restore points may be "
                "wrong; `vcbproxy points list` shows which are suspect"
            )
        if self.outcome is Outcome.PARTIAL:
            raise Partial("; ".join(self._told(bad)))
        if len(bad) == 1 and bad[0].error is not None:
            raise bad[0].error
        raise Error(f"none of {len(bad)} VMs was protected: {_names(bad)}")

    def _told(self, bad: Sequence[VmResult]) -> Iterator[str]:
        """What is wrong, with the VMs of which that is so."""
        alarmed = [result for result in bad if result.outcome is Outcome.ALARM]
        left = [result for result in bad if result.only_snapshot_left]
        lacking = [result for result in bad if result not in alarmed and result not in left]
        for what, results in (
            ("not fully protected", lacking),
            ("a VM snapshot or its links are left behind", left),
            ("backed up, but change tracking had lied about earlier restore points", alarmed),
        ):
            share = f" ({len(results)} of {len(self.results)} VMs)" if len(self.results) > 1 else ""
            if results:
                yield f"{what}: {_names(results)}{share}"


def _names(results: Sequence[VmResult]) -> str:
    return ", ".join(result.vm for result in results)
