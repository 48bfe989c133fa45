"""The descriptor: a small text that says what a virtual disk is made of.

In: its bytes. Out: a `Descriptor`, checked by itself, or VmdkError.

    # Disk DescriptorFile
    version=1
    encoding="UTF-8"
    CID=7c1f0a11                              changes when the disk is first written after it was opened
    parentCID=ffffffff                        the CID its parent must have; ffffffff: no parent
    createType="vmfs"
    # Extent description
    RW 83886080 VMFS "web01-flat.vmdk"        access, sectors, type, file, sector offset in the file
    # The Disk Data Base
    #DDB
    ddb.adapterType = "lsilogic"

Strict: a line, key, type or value that might change what the disk reads as and is not known here is refused. Keys under
``ddb.`` describe geometry and tools and are kept as they are, but for the two that say that the bytes are not plain.

Sources: VMware's "Virtual Disk Format 5.0" note; VDDK programming guide on versions 1 to 3; descriptors written by
ESXi 4 to 8, by qemu-img and by ovftool.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import NoReturn

from vcbproxy.errors import VmdkError
from vcbproxy.vmdk import c_vmdk


class ExtentType(Enum):
    """The extent types that can be read, by the word in the extent line."""

    VMFS = "VMFS"
    VMFS_SPARSE = "VMFSSPARSE"
    SE_SPARSE = "SESPARSE"
    FLAT = "FLAT"
    SPARSE = "SPARSE"
    ZERO = "ZERO"
    RAW_MAP = "VMFSRDM"


@dataclass(frozen=True, slots=True)
class ExtentLine:
    """One extent line, checked by itself."""

    sectors: int
    type: ExtentType
    file_name: str
    """A plain name beside the descriptor; empty for ZERO."""
    offset_sectors: int


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A descriptor, checked by itself; the chain checks it against its neighbours."""

    version: int
    encoding: str
    cid: int
    parent_cid: int | None
    parent_hint: str | None
    create_type: str
    extents: tuple[ExtentLine, ...]
    ddb: Mapping[str, str]

    @property
    def sectors(self) -> int:
        """The disk's capacity."""
        return sum(extent.sectors for extent in self.extents)


_HIDING = frozenset({ExtentType.FLAT, ExtentType.VMFS, ExtentType.ZERO, ExtentType.RAW_MAP})
"""Extents that leave nothing to a parent."""
_KEY_VALUE = re.compile(r'\s*([A-Za-z][\w.:-]*)\s*=\s*(?:"([^"]*)"|([^"\s](?:[^"]*[^"\s])?)|)\s*')
_EXTENT = re.compile(r'\s*(RW|RDONLY|NOACCESS)\s+(\d{1,19})\s+([A-Z]+)(?:\s+"([^"]*)"(?:\s+(\d{1,19}))?)?\s*', re.ASCII)
_EXTENT_START = re.compile(r"\s*(RW|RDONLY|NOACCESS)\s", re.IGNORECASE)
_ENCODING = re.compile(rb'^[ \t]*((?:ddb\.)?encoding)[ \t]*=[ \t]*"?([A-Za-z0-9_-]{1,32})"?[ \t]*\r?$', re.MULTILINE)
"""ESX before 4.0 keeps it under ``ddb.``."""
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def parse(data: bytes, name: str) -> Descriptor:
    """Read a descriptor; ``name`` is what messages call it.

    Raises:
        VmdkError: it is not one, or says something that is not known or not safe.
    """
    return _Parser(name).parse(data)


class _Parser:
    def __init__(self, name: str) -> None:
        self._name = name
        self._encoding = "UTF-8"
        self._header: dict[str, str] = {}
        self._ddb: dict[str, str] = {}
        self._extent_lines: list[tuple[int, str]] = []

    def _refuse(self, reason: str) -> NoReturn:
        raise VmdkError(file=self._name, reason=reason)

    def parse(self, data: bytes) -> Descriptor:
        for number, line in enumerate(self._decode(data).split("\n"), start=1):
            self._line(number, line.removesuffix("\r"))
        if "version" not in self._header:
            self._refuse("not a VMDK descriptor: it gives no version")
        declared = self._header.get("encoding", self._ddb.get("ddb.encoding", "UTF-8"))
        if declared != self._encoding:
            self._refuse(f"unknown encoding {declared[:40]!r}")
        self._refuse_encrypted()
        create_type = self._create_type()
        cid, parent_cid, hint = self._identity()
        extents = tuple(self._extent(number, line) for number, line in self._extent_lines)
        self._check_extents(extents, create_type, parent_cid)
        return Descriptor(
            version=self._version(),
            encoding=self._encoding,
            cid=cid,
            parent_cid=parent_cid,
            parent_hint=hint,
            create_type=create_type,
            extents=extents,
            ddb=MappingProxyType(self._ddb),
        )

    def _decode(self, data: bytes) -> str:
        """Text by the encoding that it names itself; all known ones leave ASCII alone, so that name can be found."""
        if len(data) > c_vmdk.DESCRIPTOR_MAX_BYTES:
            self._refuse(f"not a VMDK descriptor: {len(data)} bytes are too many for one")
        data, _, behind = data.rstrip(b"\0").partition(b"\0")
        if not data.endswith(behind):
            # Padding is legal, and so is what qemu-img leaves there when a rewritten CID has fewer digits: the last
            # bytes of the same text. Anything else is no text, or a second one.
            self._refuse("not a VMDK descriptor: it holds NUL bytes")
        found = {match[1]: match[2].decode("ascii") for match in _ENCODING.finditer(data)}
        self._encoding = label = found.get(b"encoding") or found.get(b"ddb.encoding") or self._encoding
        codec = c_vmdk.ENCODINGS.get(label.lower())
        if codec is None:
            self._refuse(f"unknown encoding {label!r}")
        try:
            text = data.decode(codec)
        except UnicodeDecodeError as error:
            raise VmdkError(
                file=self._name, reason=f"not a VMDK descriptor: byte {error.start} is not {label}"
            ) from error
        return text.removeprefix("\ufeff")

    def _line(self, number: int, line: str) -> None:
        if not line.strip() or line.lstrip().startswith("#"):
            return
        if len(line) > c_vmdk.LINE_MAX_CHARS:
            self._refuse(f"line {number} is {len(line)} characters long")
        if _CONTROL.search(line):
            self._refuse(f"line {number} holds control characters")
        if _EXTENT_START.match(line):
            if len(self._extent_lines) >= c_vmdk.MAX_EXTENTS:
                self._refuse(f"more than {c_vmdk.MAX_EXTENTS} extent lines")
            self._extent_lines.append((number, line))
            return
        match = _KEY_VALUE.fullmatch(line)
        if match is None:
            self._refuse(f"line {number} is not understood: {line[:80]!r}")
        self._pair(number, match[1], match[2] or match[3] or "")

    def _pair(self, number: int, key: str, value: str) -> None:
        if key.startswith("ddb."):
            if self._ddb.setdefault(key, value) != value:
                self._refuse(f"line {number} gives {key} a second, different value")
            return
        if key not in c_vmdk.HEADER_KEYS:
            self._refuse(f"line {number} has the unknown key {key[:80]!r}")
        if key in self._header:
            self._refuse(f"line {number} gives {key} a second time")
        self._header[key] = value

    def _extent(self, number: int, line: str) -> ExtentLine:
        match = _EXTENT.fullmatch(line)
        if match is None:
            self._refuse(f"extent line {number} is not understood: {line[:80]!r}")
        access, sectors, word, file_name, offset = match[1], int(match[2]), match[3], match[4], match[5]
        if word in c_vmdk.REFUSED_EXTENTS:
            self._refuse(f"extent line {number}: {c_vmdk.REFUSED_EXTENTS[word]}")
        try:
            kind = ExtentType(word)
        except ValueError as error:
            raise VmdkError(file=self._name, reason=f"extent line {number} has the unknown type {word[:40]}") from error
        if access == "NOACCESS":
            self._refuse(f"extent line {number} forbids access to a part of the disk")
        if not 0 < sectors <= c_vmdk.MAX_SECTORS:
            self._refuse(f"extent line {number} is {sectors} sectors long")
        if (file_name is None) != (kind is ExtentType.ZERO):
            self._refuse(f"extent line {number}: type {word} {'without' if file_name is None else 'with'} a file")
        return ExtentLine(
            sectors=sectors,
            type=kind,
            file_name=self._plain_name(number, file_name) if file_name is not None else "",
            offset_sectors=self._offset(number, kind, offset),
        )

    def _offset(self, number: int, kind: ExtentType, offset: str | None) -> int:
        """FLAT must say where in its file it begins, VMFS may, but only at 0 (ESXi never writes another)."""
        value = int(offset) if offset is not None else 0
        if kind is ExtentType.FLAT and offset is None:
            self._refuse(f"extent line {number}: type FLAT without the offset in its file")
        if value > c_vmdk.MAX_SECTORS or (kind is not ExtentType.FLAT and value != 0):
            self._refuse(f"extent line {number}: type {kind.value} at sector {value} of its file")
        return value

    def _plain_name(self, number: int, name: str) -> str:
        """An extent lies beside its descriptor: anything that could lead elsewhere is refused."""
        if name.startswith(("vsan://", "vvol://")):
            self._refuse(
                f"extent line {number}: {name[:60]!r} is an object of vSAN or vVols, not a file of a datastore"
            )
        if name in {"", ".", ".."} or "/" in name or "\\" in name:
            self._refuse(f"extent line {number}: {name[:80]!r} is not a plain file name beside the descriptor")
        return name

    def _version(self) -> int:
        text = self._header["version"]
        if text not in c_vmdk.DESCRIPTOR_VERSIONS:
            self._refuse(f"unknown descriptor version {text[:20]!r}")
        return int(text)

    def _refuse_encrypted(self) -> None:
        for key in c_vmdk.ENCRYPTION_KEYS & self._header.keys():
            self._refuse(f"the disk is encrypted ({key}): its bytes on the datastore are ciphertext")
        filters = self._ddb.get("ddb.iofilters", "")
        for word in filter(None, re.split(r"[,;\s]+", filters)):
            if not c_vmdk.HARMLESS_IO_FILTER.fullmatch(word):
                self._refuse(f"the I/O filter {word[:40]!r} may encrypt or hold back data of this disk")

    def _create_type(self) -> str:
        create_type = self._header.get("createType", "")
        if create_type in c_vmdk.REFUSED_TYPES:
            self._refuse(f"createType {create_type}: {c_vmdk.REFUSED_TYPES[create_type]}")
        if create_type not in c_vmdk.READABLE_TYPES:
            self._refuse(f"unknown createType {create_type[:40]!r}")
        if self._header.get("isNativeSnapshot", "no").lower() != "no":
            self._refuse("a native snapshot lies in the storage array, not in files of the datastore")
        return create_type

    def _identity(self) -> tuple[int, int | None, str | None]:
        cid, parent_cid = self._cid("CID"), self._cid("parentCID")
        hint = self._header.get("parentFileNameHint") or None
        if parent_cid == c_vmdk.CID_NONE:
            if hint is not None:
                self._refuse(f"it names the parent {hint[:80]!r}, but its parentCID says it has none")
            return cid, None, None
        if hint is None:
            self._refuse(f"it has the parent {parent_cid:08x}, but no parentFileNameHint to find it by")
        return cid, parent_cid, hint

    def _cid(self, key: str) -> int:
        text = self._header.get(key, "")
        if not re.fullmatch(r"[0-9a-fA-F]{1,8}", text):
            self._refuse(f"{key} is {'missing' if not text else repr(text[:20])}")
        return int(text, 16)

    def _check_extents(self, extents: tuple[ExtentLine, ...], create_type: str, parent_cid: int | None) -> None:
        if not extents:
            self._refuse("it has no extent lines")
        allowed = c_vmdk.READABLE_TYPES[create_type]
        for extent in extents:
            if extent.type.value not in allowed and extent.type is not ExtentType.ZERO:
                self._refuse(f"an extent of type {extent.type.value} in a disk of createType {create_type}")
            if parent_cid is not None and extent.type in _HIDING:
                # Such an extent hides all of its parent: then one of the two is not meant.
                self._refuse(f"an extent of type {extent.type.value} in a disk that has a parent")
        if create_type in c_vmdk.RAW_MAPS and [extent.type for extent in extents] != [ExtentType.RAW_MAP]:
            self._refuse(f"createType {create_type} is one LUN, and there are {len(extents)} extents")
        if create_type == c_vmdk.ALWAYS_A_DELTA and parent_cid is None:
            # A hand that mended a chain took the parent out: all that lay there would read as zeroes.
            self._refuse(f"createType {create_type} is a snapshot's delta, and it names no parent")
        if sum(extent.sectors for extent in extents) > c_vmdk.MAX_SECTORS:
            self._refuse("its extents add up to more than a virtual disk can hold")
