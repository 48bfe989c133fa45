"""An index read from its XML, strictly: what is wrong is refused, what is unknown is kept.

One bad index would send reads to wrong blocks and, once written back, make that permanent. So every rule that the
standard has for a single index is held here; those that need the tape (positions, back pointers) are held
by ``layout`` and ``mount``.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from itertools import pairwise

from tape.errors import FormatError, IncrementalIndex
from tape.ltfs import names, times
from tape.ltfs.index import ROOT_UID, Directory, Extent, File, Index, Lock, Pointer, Times
from tape.ltfs.label import FIRST_CONTENT_BLOCK, letter_in, uuid_in
from tape.ltfs.xmltree import Element, Reading, parse
from tape.scsi.transport import Buffer

_VERSIONS = re.compile(r"[12]\.\d{1,2}\.\d{1,2}")
_BOTH = ("name", "fileuid", "readonly", "extendedattributes", *times.TAGS)
_ROOT = (
    "creator", "comment", "volumeuuid", "generationnumber", "updatetime", "location", "previousgenerationlocation",
    "allowpolicyupdate", "dataplacementpolicy", "volumelockstate", "highestfileuid", "directory",
)  # fmt: skip
_INCREMENTAL = "<previousincrementallocation"  # of LTFS 2.5; an index that we write comes after no incremental one
_UID_MAX = (1 << 64) - 1


def decode(pieces: Iterable[Buffer], where: str) -> Index:
    """Read an index.

    Args:
        pieces: its bytes.
        where: it lies, for messages.

    Raises:
        FormatError: it breaks a rule; the message says which, and of what file.
    """
    reader = _Reader(where)
    root = parse(pieces, where, {"file": reader.file, "directory": reader.directory})
    return reader.index(root)


class _Reader:
    def __init__(self, where: str) -> None:
        self._where = where
        self._uids: set[int] = set()

    def index(self, root: Element) -> Index:
        if root.tag == "ltfsincrementalindex":
            reason = (
                "an incremental index of LTFS 2.5: let the program that wrote it mount and unmount the volume first"
            )
            raise IncrementalIndex(where=self._where, reason=reason)
        if root.tag != "ltfsindex":
            raise FormatError(where=self._where, reason=f"an index is <ltfsindex>, this is <{root.tag[:40]}>")
        version = root.attributes.get("version", "")
        if not _VERSIONS.fullmatch(version):
            raise FormatError(where=self._where, reason=f"version {version[:20]!r} of the format is not known")
        read = Reading(root, self._where, _ROOT)
        top = self.directory(read.element("directory"), top=True)
        index = Index(
            volume_uuid=uuid_in(read, "volumeuuid"),
            generation=read.number("generationnumber", 1),
            update_time_ns=times.read(read.text("updatetime"), self._where),
            location=self._pointer(read, "location"),
            previous=self._pointer(read, "previousgenerationlocation")
            if read.has("previousgenerationlocation")
            else None,
            root=top,
            highest_uid=read.number("highestfileuid", 1, _UID_MAX) if read.has("highestfileuid") else 0,
            creator=read.text("creator"),
            comment=read.text("comment") if read.has("comment") else None,
            lock=self._lock(read),
            allow_policy_update=read.truth("allowpolicyupdate"),
            policy=read.element("dataplacementpolicy").written() if read.has("dataplacementpolicy") else "",
            version=version,
            unknown=tuple(one for one in read.unknown if not one.startswith(_INCREMENTAL)),
        )
        greatest = max(self._uids, default=ROOT_UID)
        if index.highest_uid and index.highest_uid < greatest:
            raise read.wrong(f"a file has uid {greatest}, and the highest ever given is {index.highest_uid}")
        index.highest_uid = index.highest_uid or greatest
        return index

    def directory(self, element: Element, *, top: bool = False) -> Directory:
        read = Reading(element, self._where, (*_BOTH, "contents"))
        made = Directory(
            name=self._name(read, top=top),
            uid=self._uid(read, top=top),
            times=self._times(read),
            read_only=read.truth("readonly", default=False),
            xattrs=self._xattrs(read),
            unknown=tuple(read.unknown),
        )
        for child in read.element("contents").children:
            if isinstance(child, Element):
                raise read.wrong(f"<{child.tag[:40]}> among its contents")
            assert isinstance(child, File | Directory), "the parser makes nothing else"
            if child.name in made.entries:
                raise read.wrong(f"{child.name!r} is twice in {made.name!r}")
            made.entries[child.name] = child
        return made

    def file(self, element: Element) -> File:
        read = Reading(element, self._where, (*_BOTH, "length", "openforwrite", "extentinfo", "symlink"))
        made = File(
            name=self._name(read),
            uid=self._uid(read),
            times=self._times(read),
            length=read.number("length", 0, (1 << 63) - 1),
            extents=self._extents(read),
            read_only=read.truth("readonly", default=False),
            open_for_write=read.truth("openforwrite", default=False),
            symlink=self._encoded(read.element("symlink")) if read.has("symlink") else None,
            xattrs=self._xattrs(read),
            unknown=tuple(read.unknown),
        )
        if made.symlink is not None and read.has("extentinfo"):
            raise read.wrong(f"{made.name!r} is a symbolic link, and has data")
        if made.extents and made.extents[-1].file_end > made.length:
            raise read.wrong(f"{made.name!r} has {made.length} bytes, its extents reach {made.extents[-1].file_end}")
        return made

    def _lock(self, read: Reading) -> Lock | None:
        if not read.has("volumelockstate"):
            return None
        text = read.text("volumelockstate").strip()
        try:
            return Lock(text)
        except ValueError:
            raise read.wrong(f"lock state {text[:20]!r} is not known") from None

    def _pointer(self, read: Reading, tag: str) -> Pointer:
        inner = Reading(read.element(tag), self._where, ("partition", "startblock"))
        return Pointer(letter_in(inner, "partition"), inner.number("startblock", FIRST_CONTENT_BLOCK))

    def _name(self, read: Reading, *, top: bool = False) -> str:
        name = self._encoded(read.element("name"))
        if not (top and not name):  # the volume may have no name
            names.hold_valid(name)
        return name

    def _encoded(self, element: Element) -> str:
        if element.children:
            raise FormatError(where=self._where, reason=f"<{element.tag}> should hold text alone")
        return names.decoded(element.text, element.attributes.get("percentencoded", "").lower() in ("true", "1"))

    def _uid(self, read: Reading, *, top: bool = False) -> int:
        if not read.has("fileuid"):  # before version 2.0
            return ROOT_UID if top else 0
        uid = read.number("fileuid", 1, _UID_MAX)
        if top != (uid == ROOT_UID):
            raise read.wrong("the root, and it alone, has uid 1")
        if uid in self._uids:
            raise read.wrong(f"uid {uid} is given twice")
        self._uids.add(uid)
        return uid

    def _times(self, read: Reading) -> Times:
        def moment(tag: str) -> int:
            return times.read(read.text(tag), self._where)

        *always, last = times.TAGS
        created, changed, modified, accessed = map(moment, always)
        return Times(created, changed, modified, accessed, moment(last) if read.has(last) else modified)

    def _xattrs(self, read: Reading) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        if not read.has("extendedattributes"):
            return found
        for element in read.element("extendedattributes").elements("xattr"):
            pair = Reading(element, self._where, ("key", "value"))
            key = self._encoded(pair.element("key"))
            if not key or key in found:
                raise read.wrong(f"the extended attribute {key!r} stands there twice, or has no name")
            found[key] = self._value(pair)
        return found

    def _value(self, pair: Reading) -> bytes:
        if not pair.has("value"):
            return b""
        kind = pair.element("value").attributes.get("type", "text")
        text = pair.text("value")
        if kind != "base64":
            return text.encode("utf-8")
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except binascii.Error as error:
            raise pair.wrong(f"its value is not base64: {error}") from error

    def _extents(self, read: Reading) -> tuple[Extent, ...]:
        if not read.has("extentinfo"):
            return ()
        extents = sorted(
            map(self._extent, read.element("extentinfo").elements("extent")), key=lambda one: one.file_offset
        )
        for before, after in pairwise(extents):
            if after.file_offset < before.file_end:
                raise read.wrong(f"extents overlap at byte {after.file_offset} of the file")
        return tuple(extents)

    def _extent(self, element: Element) -> Extent:
        read = Reading(element, self._where, ("fileoffset", "partition", "startblock", "byteoffset", "bytecount"))
        return Extent(
            file_offset=read.number("fileoffset", 0, (1 << 63) - 1) if read.has("fileoffset") else 0,
            start=Pointer(letter_in(read, "partition"), read.number("startblock", FIRST_CONTENT_BLOCK)),
            byte_offset=read.number("byteoffset", 0, (1 << 30) - 1),
            byte_count=read.number("bytecount", 1, (1 << 63) - 1),
        )
