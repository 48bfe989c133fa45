"""Real VMFS and LVM images, made on ESXi in 2025, from the source package of dissect.vmfs 3.13 on PyPI.

The package is AGPL and is not ours to ship: it is downloaded once by pip, checked against its hash, and kept under
``.cache/dissect_vmfs``. Where it cannot be had the tests that want it are skipped, aloud. Images are unpacked when
first asked for, sparse; of the volume manager's 12 images, half a gigabyte of pattern each, only the ends of each MiB
are kept.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import subprocess
import sys
import tarfile
import venv
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[2] / ".cache" / "dissect_vmfs"
_SDIST = "dissect_vmfs-3.13.tar.gz"
_SHA256 = "904a4116b944acfc6a7a9de013ae1db14c760cb76138fd77c6a5b510b98c828d"
_INSIDE = "dissect_vmfs-3.13/tests/_data/"
_MIB, _PAGE = 1 << 20, 4096
_WHOLE = 20 * _MIB  # LVM metadata, and a little of what follows


def image(name: str) -> Path:
    """An unpacked image, such as ``vmfs/vmfs5.bin`` or ``lvm/span/lvm3-span-0.bin``; skips the test without network."""
    path = CACHE / "images" / name
    with _alone():
        if not path.exists():
            _unpack(_packed(name + ".gz"), path, keep_all=name.startswith("vmfs/"))
    return path


def lines(name: str) -> Iterator[tuple[int, bytes]]:
    """The (offset, bytes) pairs of a header dump, such as ``lvm/huge/lvm5.csv``."""
    with _alone():
        packed = _packed(name + ".gz")
    with gzip.open(packed, "rt") as text:
        for line in text:
            offset, data = line.strip().split(",")
            yield int(offset), bytes.fromhex(data)


@contextmanager
def _alone() -> Iterator[None]:
    """One process at a time downloads and unpacks."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _packed(name: str) -> Path:
    path = CACHE / "packed" / name
    if not path.exists():
        with tarfile.open(_sdist()) as archive:
            member = archive.extractfile(_INSIDE + name)
            assert member is not None
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(".new")
            fresh.write_bytes(member.read())
            fresh.rename(path)
    return path


def _sdist() -> Path:
    path = CACHE / _SDIST
    if not path.exists():
        if (CACHE / "unreachable").exists() and not os.environ.get("CI"):
            pytest.skip(f"dissect.vmfs 3.13 could not be downloaded; remove {CACHE / 'unreachable'} to try again")
        try:
            _download()
        except (OSError, subprocess.SubprocessError) as error:
            (CACHE / "unreachable").touch()
            pytest.skip(f"dissect.vmfs 3.13 cannot be downloaded from the package index: {error}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found == _SHA256, f"{path} has sha256 {found}"
    return path


def _download() -> None:
    """By pip, in an environment of its own: pip runs the build backend before it hands out a source package."""
    env = CACHE / "env"
    venv.create(env, with_pip=True)
    pip = [str(env / "bin" / "pip"), "--quiet", "--disable-pip-version-check"]
    tools = ["setuptools>=80", "setuptools_scm>=8", "wheel"]
    subprocess.run([*pip, "install", "--upgrade", *tools], check=True, timeout=300, stdout=sys.stderr)
    wanted = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--dest", str(CACHE), "dissect.vmfs==3.13"]
    subprocess.run([*pip, "download", *wanted], check=True, timeout=300, stdout=sys.stderr)


def _unpack(packed: Path, path: Path, *, keep_all: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as out:
        size = 0
        for part in _mebibytes(packed):
            if keep_all or size < _WHOLE:
                _write_sparse(out.fileno(), part, size)
            else:
                assert part == part[:1] * len(part), "the pattern of the LVM images is one byte to a MiB"
                os.pwrite(out.fileno(), part[:_PAGE], size)
                os.pwrite(out.fileno(), part[-_PAGE:], size + len(part) - _PAGE)
            size += len(part)
        out.truncate(size)
    fresh.rename(path)


_ZEROES = bytes(_MIB)


def _write_sparse(out: int, part: bytes, at: int) -> None:
    if part == _ZEROES:
        return
    for offset in range(0, len(part), _PAGE):
        page = part[offset : offset + _PAGE]
        if any(page):
            os.pwrite(out, page, at + offset)


def _mebibytes(packed: Path) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(31)
    held = b""
    with packed.open("rb") as source:
        while not unpacker.eof:
            raw = unpacker.unconsumed_tail or source.read(1 << 16)
            held += unpacker.decompress(raw, _MIB - len(held))
            if len(held) == _MIB:
                yield held
                held = b""
    if held:
        yield held
