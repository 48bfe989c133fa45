"""Emulated libraries for tests: small, and served when something outside this process is to use them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tape.emulator.iscsi.target import IscsiTarget
from tape.emulator.kinds import Kind
from tape.emulator.library import VirtualLibrary

BARCODES = ("TAP001L8", "TAP002L8", "CLN001L8")


@dataclass(frozen=True, slots=True)
class Served:
    library: VirtualLibrary
    target: IscsiTarget


def small_library(folder: Path, **options: object) -> VirtualLibrary:
    return VirtualLibrary.create(folder, barcodes=BARCODES, kind=Kind(capacity_mib=100), **options)  # type: ignore[arg-type]


@contextmanager
def served(library: VirtualLibrary) -> Iterator[Served]:
    with IscsiTarget(library.luns, library.iscsi_name) as target:
        yield Served(library, target)
