"""The truth: what a disk held at the instant of a snapshot, from the host's side, to hold a restore against.

Comes in: a chain and the link that the snapshot froze. Goes out: the SHA-256 of the whole raw disk and, when asked
for, a sparse raw copy. Holes are not read; the digest still covers them, as it would with ``sha256sum`` of the copy.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from vcbproxy.lab.chain import Chain
from vcbproxy.lab.machine import Machine
from vcbproxy.lab.spec import Truth
from vcbproxy.lab.state import SnapshotState, TruthRecord, TruthState
from vcbproxy.units import MiB

_STEP_BYTES = 4 * MiB
_ZEROES = bytes(_STEP_BYTES)


def record(machine: Machine, snapshot: SnapshotState, kept: Truth, directory: Path) -> TruthRecord | None:
    """Record what a snapshot froze, with raw copies below ``directory`` if they are wanted."""
    if kept is Truth.NONE:
        return None
    folder = Path("truth") / machine.state.name / snapshot.moref
    if kept is Truth.RAW:
        (directory / folder).mkdir(parents=True)
    disks = {}
    for node, path in snapshot.frozen.items():
        chain = machine.chain(node)
        raw = folder / f"{node}.raw" if kept is Truth.RAW else None
        disks[node] = freeze(chain, chain.level_of(path), directory / raw if raw else None)
        disks[node].raw_path = str(raw or "")
    return TruthRecord(
        vm=machine.state.name,
        vm_moref=machine.state.moref,
        snapshot=snapshot.moref,
        name=snapshot.name,
        description=snapshot.description,
        created=snapshot.created,
        disks=disks,
    )


def freeze(chain: Chain, level: int, raw: Path | None = None) -> TruthState:
    """Digest a frozen link, and copy it to ``raw`` if given. Nothing may merge the chain meanwhile."""
    digest = hashlib.sha256()
    size_bytes = chain.disk.size_bytes
    position = 0
    copy = raw.open("xb") if raw is not None else None
    try:
        for start, length in chain.ranges(level):
            _feed_zeroes(digest, start - position)
            for offset in range(start, start + length, _STEP_BYTES):
                data = chain.read(offset, min(_STEP_BYTES, start + length - offset), level)
                digest.update(data)
                if copy is not None and data.count(0) != len(data):
                    copy.seek(offset)
                    copy.write(data)
            position = start + length
        _feed_zeroes(digest, size_bytes - position)
        if copy is not None:
            copy.truncate(size_bytes)
    finally:
        if copy is not None:
            copy.close()
    return TruthState(size_bytes, digest.hexdigest())


def _feed_zeroes(digest: hashlib._Hash, length: int) -> None:
    view = memoryview(_ZEROES)
    while length > 0:
        digest.update(view[: min(length, len(view))])
        length -= len(view)
