"""Two independently installed systems that share most of their files: 1.5 GiB of ext4 each, about 1 GB of it full.

    packages     ....aaaaaaaaaaaaaaaa................    a     in A alone
                 ....................bbbbbbbbbbbbbbbb    b     in B alone
                 CCCC                                    C     in both: three of five bytes

A package is a directory of this machine's own /usr with what lies below it, or a part of a large one. Both systems have
them in an order of their own, so what comes before and after a package differs, and so does where it lies; within one
the order is the same, as it is when a package is installed twice. Made with mkfs.ext4 alone and without root, once;
kept in ``.cache/bench``.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.image import cache, files_below

SIZE_BYTES = 3 << 29
FULL_BYTES = 1_000_000_000
SHARED = 0.61
_DEPTH = 5  # usr/lib/python3/name
_PACKAGE_BYTES = 16_000_000  # a directory that holds more is many packages


@dataclass(frozen=True)
class Twin:
    """One of the two; ``name`` is ``a`` or ``b``."""

    name: str
    path: Path


def twins() -> tuple[Twin, Twin]:
    """The images; made if they are not there."""
    found = tuple(Twin(name, cache() / f"twin-{name}.img") for name in "ab")
    if not all(twin.path.exists() for twin in found):
        shared, of_a, of_b = _parted()
        _make(found[0].path, [*shared, *of_a], "5ea1ab1e-0000-4000-8000-00000000000a")
        _make(found[1].path, [*shared, *of_b], "5ea1ab1e-0000-4000-8000-00000000000b")
    return found[0], found[1]


Package = tuple[str, Sequence[Path]]


def _parted() -> tuple[list[Package], list[Package], list[Package]]:
    """The packages of both, of A and of B, chosen by their names' digests."""
    packages: dict[str, list[Path]] = {}
    sizes: dict[str, int] = {}
    for path in files_below(Path("/usr")):
        directory = "/".join(path.parent.parts[1:_DEPTH])
        sizes[directory] = sizes.get(directory, 0) + _room(path)
        packages.setdefault(f"{directory} {sizes[directory] // _PACKAGE_BYTES}", []).append(path)
    ordered = iter(sorted(packages.items(), key=lambda package: _digest("which", package[0])))
    shares = (SHARED * FULL_BYTES, (1 - SHARED) * FULL_BYTES, (1 - SHARED) * FULL_BYTES)
    taken = [list(_up_to(ordered, share)) for share in shares]
    return taken[0], taken[1], taken[2]


def _room(path: Path) -> int:
    return -(-path.stat().st_size // 4096) * 4096


def _up_to(packages: Iterator[Package], wanted_bytes: float) -> Iterator[Package]:
    total = 0
    for name, paths in packages:
        yield name, paths
        total += sum(map(_room, paths))
        if total >= wanted_bytes:
            return
    raise RuntimeError("/usr is too small to make two systems of")


def _make(image: Path, packages: Sequence[Package], uuid: str) -> None:
    staging, unfinished = cache() / "staging", image.with_suffix(".partial")
    shutil.rmtree(staging, ignore_errors=True)
    unfinished.unlink(missing_ok=True)
    try:
        for name, paths in packages:
            for path in paths:
                target = staging / _digest(uuid, name)[:8] / path.relative_to("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        with unfinished.open("wb") as out:
            out.truncate(SIZE_BYTES)
        options = ["-q", "-F", "-m", "0", "-N", "262144", "-U", uuid, "-E", f"hash_seed={uuid}"]
        subprocess.run(["mkfs.ext4", *options, "-d", staging, unfinished], check=True)
        unfinished.replace(image)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def blocks_shared(one: Path, other: Path) -> float:
    """How much of one image's 4 KiB blocks that are not zero is in the other, too: what no chunker can exceed."""
    found = [set(_blocks(path)) for path in (one, other)]
    mine = list(_blocks(one))
    return sum(block in found[1] for block in mine) / len(mine)


def _blocks(path: Path) -> Iterator[bytes]:
    zero = bytes(4096)
    with path.open("rb") as file:
        for block in iter(lambda: file.read(4096), b""):
            if block != zero:
                yield hashlib.blake2b(block, digest_size=16).digest()


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()
