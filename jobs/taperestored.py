"""What came back from tape, and what did not: damage becomes the error that has its exit code."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.restore import RestoredDisk, suspect
from jobs.tapesalvage import Salvaged
from vcbproxy.errors import IntegrityError, Partial


@dataclass(frozen=True, slots=True)
class Proved:
    """An image that is whole: of which restore point, by its id, and disk, and how large what came out of it was."""

    point: str
    key: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back, and what did not: reasons by disk, or by file."""

    disks: list[RestoredDisk]
    failed: dict[str, str]
    missing: dict[str, str]
    """Disks that are not in the restore points."""
    salvaged: dict[str, Salvaged] = field(default_factory=dict)
    """What could still be had of disks that failed."""
    proved: list[Proved] = field(default_factory=list)
    """Images that are whole."""
    suspects: list[str] = field(default_factory=list)
    """Restore points that came back, and that an audit found not to be relied upon."""

    def __add__(self, other: Restored) -> Restored:
        """Both together."""
        return Restored(
            self.disks + other.disks,
            {**self.failed, **other.failed},
            {**self.missing, **other.missing},
            {**self.salvaged, **other.salvaged},
            self.proved + other.proved,
            self.suspects + other.suspects,
        )

    def raise_unless_whole(self) -> None:
        """Turn damage into the error that has its exit code.

        Raises:
            IntegrityError: some disk is damaged.
            Partial: some disk of a VM is not in its restore point, or that is suspect.
        """
        if self.failed:
            told = "; ".join(f"{what}: {reason}" for what, reason in self.failed.items())
            hint = "" if self.salvaged else "; --salvage writes what can still be read"
            saved = "".join(
                f"; {one.path} lacks {one.missing_bytes} bytes, by {one.path.name}.map"
                for one in self.salvaged.values()
            )
            raise IntegrityError(f"not restored: {told}{saved}{hint}")
        if self.suspects:
            raise Partial(suspect(", ".join(self.suspects)))
        if self.missing:
            told = "; ".join(self.missing.values())
            raise Partial(f"restored, but not the whole of each VM, these disks are not on tape: {told}")
