"""Real VMFS and LVM images, and an SE-sparse delta, made on ESXi; from source packages of the Dissect project on PyPI.

The packages are AGPL and are not ours to ship: each is downloaded once by pip, checked against its hash, and kept
under ``.cache``. Where it cannot be had the tests that want it are skipped, aloud. Images are unpacked when first asked
for, sparse; of the volume manager's 12 images, half a gigabyte of pattern each, only the ends of each MiB are kept.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from zlib_ng import zlib_ng


@dataclass(frozen=True, slots=True)
class _Package:
    """A source package: what pip calls it, its file, and where in it the images lie."""

    requirement: str
    sdist: str
    sha256: str
    inside: str

    @property
    def cache(self) -> Path:
        """Where it and what came out of it are kept."""
        return Path(__file__).parents[2] / ".cache" / self.sdist.partition("-")[0]


_VMFS = _Package(
    "dissect.vmfs==3.13",
    "dissect_vmfs-3.13.tar.gz",
    "904a4116b944acfc6a7a9de013ae1db14c760cb76138fd77c6a5b510b98c828d",
    "dissect_vmfs-3.13/tests/_data/",
)
_HYPERVISOR = _Package(
    "dissect.hypervisor==3.13",
    "dissect_hypervisor-3.13.tar.gz",
    "1f10110070c0f77b4441f60ff47939704b30944059d28548d8f476b1a898855e",
    "dissect_hypervisor-3.13/tests/data/",
)
_MIB, _PAGE = 1 << 20, 4096
_WHOLE = 20 * _MIB  # LVM metadata, and a little of what follows


def image(name: str) -> Path:
    """An unpacked image, such as ``vmfs/vmfs5.bin`` or ``lvm/span/lvm3-span-0.bin``; skips the test without network."""
    return _image(_VMFS, name, keep_all=name.startswith("vmfs/"))


def sesparse_delta() -> Path:
    """The extent file of an SE-sparse delta of 512 MiB that ESXi wrote in 2021; its first 16 MiB are the letter a."""
    return _image(_HYPERVISOR, "sesparse.vmdk", keep_all=True)


def _image(package: _Package, name: str, *, keep_all: bool) -> Path:
    path = package.cache / "images" / name
    with _alone(package):
        if not path.exists():
            _unpack(_packed(package, name + ".gz"), path, keep_all=keep_all)
    return path


def lines(name: str) -> Iterator[tuple[int, bytes]]:
    """The (offset, bytes) pairs of a header dump, such as ``lvm/huge/lvm5.csv``."""
    with _alone(_VMFS):
        packed = _packed(_VMFS, name + ".gz")
    with gzip.open(packed, "rt") as text:
        for line in text:
            offset, data = line.strip().split(",")
            yield int(offset), bytes.fromhex(data)


@contextmanager
def _alone(package: _Package) -> Iterator[None]:
    """One process at a time downloads and unpacks."""
    package.cache.mkdir(parents=True, exist_ok=True)
    with (package.cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _packed(package: _Package, name: str) -> Path:
    path = package.cache / "packed" / name
    if not path.exists():
        with tarfile.open(_sdist(package)) as archive:
            member = archive.extractfile(package.inside + name)
            assert member is not None
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(".new")
            fresh.write_bytes(member.read())
            fresh.rename(path)
    return path


def _sdist(package: _Package) -> Path:
    path, unreachable = package.cache / package.sdist, package.cache / "unreachable"
    if not path.exists():
        if unreachable.exists() and not os.environ.get("CI"):
            pytest.skip(f"{package.requirement} could not be downloaded; remove {unreachable} to try again")
        try:
            _download(package)
        except (OSError, subprocess.SubprocessError) as error:
            unreachable.touch()
            pytest.skip(f"{package.requirement} cannot be downloaded from the package index: {error}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found == package.sha256, f"{path} has sha256 {found}"
    return path


def _download(package: _Package) -> None:
    """By pip, in an environment of its own: pip runs the build backend before it hands out a source package."""
    env = package.cache / "env"
    venv.create(env, with_pip=True)
    pip = [str(env / "bin" / "pip"), "--quiet", "--disable-pip-version-check"]
    tools = ["setuptools>=80", "setuptools_scm>=8", "wheel"]
    subprocess.run([*pip, "install", "--upgrade", *tools], check=True, timeout=300, stdout=sys.stderr)
    wanted = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--dest", str(package.cache)]
    subprocess.run([*pip, "download", *wanted, package.requirement], check=True, timeout=300, stdout=sys.stderr)


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
    unpacker = zlib_ng.decompressobj(31)  # 2 GiB of holes in 0.2 s, where zlib takes 4.5
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


def main() -> None:
    """Download what is not there yet, ahead of the tests."""
    for package in (_VMFS, _HYPERVISOR):
        with _alone(package):
            _sdist(package)


if __name__ == "__main__":
    main()
