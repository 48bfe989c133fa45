"""The record as a JSON sidecar file. To come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vcbproxy.clock import Clock
from vcbproxy.lab.vmfs.directory import Directory
from vcbproxy.lab.vmfs.store import Store


def save(state_path: Path, paths: Sequence[Path], store: Store, directories: dict[int, Directory]) -> None:
    """Write the record."""
    raise NotImplementedError


def load(state_path: Path, clock: Clock) -> tuple[list[Path], Store, dict[int, Directory]]:
    """Read it."""
    raise NotImplementedError
