"""LUNs that the configuration names: plain files and loop devices that stand for a LUN, for labs, tests and imports."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vcbproxy.errors import ConfigError
from vcbproxy.san import naa
from vcbproxy.san.info import LunInfo, LunKind


class NamedImage(Protocol):
    """A file or block device that the configuration names as a LUN."""

    @property
    def path(self) -> Path:
        """Where it is."""

    @property
    def wwn(self) -> str:
        """The identity it stands for; empty to keep the one it has."""


@dataclass(frozen=True, slots=True)
class ImageLun:
    """A :class:`NamedImage` made by hand."""

    path: Path
    wwn: str = ""


def by_real_path(images: Iterable[NamedImage]) -> dict[Path, NamedImage]:
    """Key the images by where their links lead, so that none is read through two names.

    Raises:
        ConfigError: one is not there, or is named twice.
    """
    named: dict[Path, NamedImage] = {}
    for image in images:
        path = resolved(image.path)
        found = mode(path)
        if not (stat.S_ISREG(found) or stat.S_ISBLK(found)):
            raise ConfigError(f"san.images: {image.path} is neither a file nor a block device")
        if path in named:
            raise ConfigError(f"san.images: {image.path} is named twice; remove one entry")
        named[path] = image
    return named


def absent(images: Iterable[NamedImage]) -> dict[Path, str]:
    """The images that are not there now, and why: one that is away must not cost the others their backup."""
    problems: dict[Path, str] = {}
    for image in images:
        try:
            mode(resolved(image.path))
        except ConfigError as error:
            problems[image.path] = str(error)
    return problems


def resolved(path: Path) -> Path:
    """Where the links lead.

    Raises:
        ConfigError: round in a circle.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"san.images: {path}: its links lead nowhere; correct the path") from error


def mode(path: Path) -> int:
    """The type and the permissions of what is at ``path``.

    Raises:
        ConfigError: there is nothing.
    """
    try:
        return path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"san.images: {path}: {error.strerror}; correct the path or remove the entry") from error


def image_info(path: Path, image: NamedImage) -> LunInfo:
    """A plain file, or a block device that has no entry in sysfs that we can see."""
    found = mode(path)
    if not stat.S_ISREG(found):
        raise ConfigError(f"san.images: {image.path}: the kernel does not know this block device any more")
    return LunInfo(
        path=str(image.path),
        name=path.name,
        kind=LunKind.IMAGE,
        size_bytes=path.stat().st_size,
        sector_bytes=512,
        wwn=naa.bare(image.wwn),
        read_only=not found & 0o222,
    )
