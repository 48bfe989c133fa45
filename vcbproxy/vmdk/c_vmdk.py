"""Words, numbers and structures of the VMDK formats; no meaning here, that is beside each reader.

Offsets and sizes are in sectors of 512 bytes unless a name ends in ``_bytes``; all integers are little endian.

Sources: VMware's "Virtual Disk Format 5.0" note (descriptor, hosted sparse, stream-optimized, COWD); QEMU's
block/vmdk.c (SE-sparse, which VMware never documented); the VDDK programming guide (descriptor versions); descriptors
of encrypted and filtered disks as ESXi 7 and 8 write them.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from vcbproxy.units import SECTOR

# ---- descriptor -----------------------------------------------------------------------------------------------------

DESCRIPTOR_MAX_BYTES = 1 << 20
"""A 62 TiB disk in 2 GB parts needs half of that."""
LINE_MAX_CHARS = 4096
DESCRIPTOR_VERSIONS = frozenset({"1", "2", "3"})
"""2: hosted encryption may follow (its keys are refused); 3: has a change tracking file, and reads like 1."""
MAX_SECTORS = 1 << 38
"""128 TiB: twice the largest disk of any ESXi."""
MAX_EXTENTS = 1 << 16
MAX_LINKS = 255
"""ESXi itself stops at 32 VM snapshots and 255 links."""
CID_NONE = 0xFFFFFFFF

ENCRYPTION_KEYS = frozenset(
    {"keyID", "encryptionKeys", "encryption.keySafe", "encryption.data", "encryption.encryptedKey", "dataFileKey"}
)
HEADER_KEYS = ENCRYPTION_KEYS | {
    "version",
    "encoding",
    "CID",
    "parentCID",
    "isNativeSnapshot",
    "createType",
    "parentFileNameHint",
    "changeTrackPath",
}

HARMLESS_IO_FILTER = re.compile(r"(?:VMW_)?(?:spm|vmwarelwd)(?:_[\d.]+)?", re.IGNORECASE)
"""Storage I/O control and the change tracker of vSphere Replication look at the data and leave them as they are."""

_CODEPAGES = ("1250", "1251", "1252", "1253", "1254", "1255", "1256", "1257", "1258", "874", "932", "936", "949", "950")
ENCODINGS = MappingProxyType(
    {
        "utf-8": "utf-8",
        "us-ascii": "ascii",
        "ascii": "ascii",
        "gbk": "gbk",
        "gb2312": "gb2312",
        "gb18030": "gb18030",
        "big5": "big5",
        "shift_jis": "shift_jis",
        "euc-jp": "euc_jp",
        "euc-kr": "euc_kr",
        "koi8-r": "koi8_r",
        **{f"iso-8859-{part}": f"iso8859_{part}" for part in (*range(1, 12), 13, 14, 15, 16)},
        **{f"{prefix}{page}": f"cp{page}" for page in _CODEPAGES for prefix in ("windows-", "cp")},
    }
)
"""Encodings by the name in the descriptor, lower case. Only those that leave ASCII alone."""

READABLE_TYPES = MappingProxyType(
    {
        "vmfs": frozenset({"VMFS"}),
        "vmfsThin": frozenset({"VMFS"}),
        "vmfsPreallocated": frozenset({"VMFS"}),
        "vmfsEagerZeroedThick": frozenset({"VMFS"}),
        "vmfsSparse": frozenset({"VMFSSPARSE"}),
        "seSparse": frozenset({"SESPARSE"}),
        "monolithicFlat": frozenset({"FLAT"}),
        "twoGbMaxExtentFlat": frozenset({"FLAT"}),
        "2GbMaxExtentFlat": frozenset({"FLAT"}),
        "monolithicSparse": frozenset({"SPARSE"}),
        "twoGbMaxExtentSparse": frozenset({"SPARSE"}),
        "2GbMaxExtentSparse": frozenset({"SPARSE"}),
        "streamOptimized": frozenset({"SPARSE"}),
        "vmfsRawDeviceMap": frozenset({"VMFSRDM"}),
        "vmfsRDM": frozenset({"VMFSRDM"}),
    }
)
"""createType: the extent types it may hold (ZERO besides)."""

ALWAYS_A_DELTA = "vmfsSparse"
"""ESXi makes it for snapshots alone. seSparse is not so: since 5.1 a base disk may be of it."""

_RAW = "a raw LUN or disk, not files of a datastore; back it up from inside the guest, or by the array"
RDM = "a raw device mapping in virtual mode: its data lie on a LUN of their own"
RAW_MAPS = frozenset({"vmfsRawDeviceMap", "vmfsRDM"})
"""Bases whose bytes are those of a whole LUN; ESXi has called them by the first name since it has had VMFS-3."""

_RDMP = "a raw device mapping in physical mode: its data lie on a LUN of their own, and no snapshot can hold them still"
REFUSED_TYPES = MappingProxyType(
    {
        "vmfsRDMP": _RDMP,
        "vmfsPassthroughRawDeviceMap": _RDMP,
        "vmfsRaw": _RAW,
        "fullDevice": _RAW,
        "partitionedDevice": _RAW,
        "vsanSparse": "a snapshot on vSAN, whose objects lie on no shared LUN",
        "custom": "disks put together by hand are not read",
    }
)
REFUSED_EXTENTS = MappingProxyType(
    {
        "VMFSRDMP": _RDMP,
        "VMFSRAW": _RAW,
        "VSANSPARSE": "a snapshot on vSAN, whose objects lie on no shared LUN",
    }
)

# ---- COWD (vmfsSparse) ----------------------------------------------------------------------------------------------

COWD_MAGIC = b"COWD"
COWD_HEADER = "<4sIIIIIII"
"""Magic, version, flags, capacity, grain size, directory offset, directory entries, next free sector."""
COWD_HEADER_BYTES = 4 * SECTOR
COWD_FLAGS = 0x3
COWD_TABLE_ENTRIES = 4096
MAX_GRAIN_SECTORS = 1 << 15
"""16 MiB; the largest seen is 64 KiB. It bounds what one packed grain may unpack to."""

# ---- SE-sparse ------------------------------------------------------------------------------------------------------

SE_MAGIC = 0x00000000CAFEBABE
SE_VERSION = 0x0000000200000001
SE_HEADER = "<26Q"
"""0 magic, version, capacity, grain size, table size, flags; 6 four reserved; then offset and size of: 10 volatile
header, 12 journal header, 14 journal, 16 grain directory, 18 grain tables, 20 free bitmap, 22 back map, 24 grains."""
SE_VOLATILE = "<4Q"
"""Magic, free table number, next transaction, replay journal."""
SE_VOLATILE_MAGIC = 0x00000000CAFECAFE
SE_GRAIN_SECTORS = 8
SE_TABLE_SECTORS = 64
SE_TABLE_ENTRIES = SE_TABLE_SECTORS * SECTOR // 8
SE_TABLE_ALLOCATED = 0x10000000
SE_GRAIN_UNMAPPED, SE_GRAIN_ZEROED, SE_GRAIN_ALLOCATED = 1, 2, 3

# ---- hosted sparse and streamOptimized ------------------------------------------------------------------------------

HOSTED_MAGIC = b"KDMV"
HOSTED_HEADER = "<4sIIQQQQIQQQB4sH"
"""Magic, version, flags, capacity, grain size, descriptor offset and size, entries a table, redundant directory,
directory, overhead, unclean shutdown, newline test bytes, compression."""
HOSTED_VERSIONS = frozenset({1, 2, 3})
HOSTED_NEWLINES, HOSTED_MIRROR, HOSTED_ZEROED, HOSTED_PACKED, HOSTED_MARKERS = 0x1, 0x2, 0x4, 0x10000, 0x20000
HOSTED_FLAGS = HOSTED_NEWLINES | HOSTED_MIRROR | HOSTED_ZEROED | HOSTED_PACKED | HOSTED_MARKERS
HOSTED_NEWLINE_BYTES = b"\n \r\n"
HOSTED_DEFLATE = 1
HOSTED_AT_END = 0xFFFFFFFFFFFFFFFF
HOSTED_MAX_TABLE_ENTRIES = 512
HOSTED_GRAIN_ZEROED = 1

GRAIN_MARKER = "<QI"
"""Sector on the disk, bytes that follow."""
GRAIN_MARKER_BYTES = 12
MARKER = "<QII"
"""Value, 0 for a marker that is no grain, type."""
MARKER_END, MARKER_FOOTER = 0, 3
