"""Names of LUNs: every spelling of one identity in, one comparable key out.

The same LUN is called differently by everyone who sees it (seen on Linux 6.1 with multipath-tools 0.9 and sg3-utils
1.46, and as ``ScsiLun.canonicalName`` of ESXi):

    naa.600144f0…             ESXi; sysfs device/wwid
    0x600144f0…               udev ID_WWN_WITH_EXTENSION, DM_WWN
    3600144f0…                scsi_id, multipath WWIDs, udev ID_SERIAL: "3" says that an NAA name follows
    wwn-0x600144f0…           /dev/disk/by-id
    scsi-3600144f0…           /dev/disk/by-id
    dm-uuid-mpath-3600144f0…  /dev/disk/by-id, and mpath-3600144f0… as DM_UUID
    600144f0…                 SCSI_IDENT_LUN_NAA_REGEXT; people

The key of an NAA name is its bare hex, 16 or 32 digits. The other kinds of name keep what kind they are: ``eui.…``,
``t10.…``, ``uuid.…``. Digits are never cut off to make two names meet: NAA type 6 names share their first half across
all LUNs of an array (which is all that udev's ID_WWN holds), so a prefix says nothing.
"""

from __future__ import annotations

import re

_LINK_PREFIXES = ("dm-uuid-mpath-", "mpath-", "wwn-", "scsi-", "nvme-")

# An NAA name starts with its type: 2, 3 and 5 are 8 bytes long, 6 is 16 (SPC-4, 7.8.6.6). Not every target keeps to it:
# QEMU gives any 8 bytes, type 6 among them.
_NAA = re.compile(r"[2356][0-9a-f]{15}(?:[0-9a-f]{16})?")
_EUI = re.compile(r"(?:[0-9a-f]{16}|[0-9a-f]{24}|[0-9a-f]{32})")
_PADDING = re.compile(r"[\s_]+")


def bare(text: str) -> str:
    """The key of a name; names of one LUN have equal keys. A name of no known kind is its own key, in lower case."""
    name = text.strip().lower()
    for prefix in _LINK_PREFIXES:
        name = name.removeprefix(prefix)
    for prefix in ("naa.", "0x"):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    if name.startswith("t10."):
        return "t10." + _squeezed(name.removeprefix("t10."))
    if name.startswith(("eui.", "uuid.")) or _NAA.fullmatch(name):
        return name
    return _from_scsi_id(name)


def _from_scsi_id(name: str) -> str:
    """Take off the digit by which scsi_id tells the kind of designator: 3 NAA, 2 EUI-64, 1 T10 vendor."""
    kind, rest = name[:1], name[1:]
    if kind == "3" and _NAA.fullmatch(rest):
        return rest
    if kind == "2" and _EUI.fullmatch(rest):
        return "eui." + rest
    if kind == "1" and re.match("[a-z]", rest):
        return "t10." + _squeezed(rest)
    return name


def _squeezed(name: str) -> str:
    """T10 names are padded with blanks, which ESXi shows as underscores and scsi_id folds into one."""
    return _PADDING.sub("_", name).strip("_")


def is_naa(key: str) -> bool:
    """Whether a key is that of an NAA name."""
    return _NAA.fullmatch(key) is not None


def canonical(key: str) -> str:
    """A key as ESXi and vCenter print it: ``naa.…`` before bare hex, all others as they are."""
    return f"naa.{key}" if is_naa(key) else key
