"""Structures of the volume manager below VMFS, in the vendor's names. Offsets only; ``lvm`` knows what they mean.

Sources: headers of LVM-3, -4, -5 and -6 volumes made by ESXi, one and two devices, and of two 64 TiB devices.
"""

from __future__ import annotations

from vcbproxy.vmfs.layout import structure

LVM_DEV_HEADER_OFFSET = 0x100000
LVM_MAGIC_NUMBER = 0xC001D00D
LVM_MAJORS = (3, 4, 5, 6)
LVM_SECTOR_SIZE = 512
LVM_SD_TABLE_SIZE = 0x80000  # volume table and device names, between the header sector(s) and the first PE bitmap
LVM_SD_NAMES_OFFSET = 0x7E000  # inside that: what the hosts call each device of the volume, in order; LVM-5 and -6
LVM_SD_NAME_SIZE = 256
LVM_SD_NAMES_MAX = 32
LVM_PE_BITMAP_SIZE_LVM5 = 0x400
LVM_PES_PER_MAP = 8192
LVM_MAX_MAPS_PER_REGION = 8
LVM_MAX_REGIONS = 16  # ours: a region serves 16 TiB, so this is 256 TiB on one device
LVM_PE_SIZE = 256 << 20

LVM_DeviceMetadata = structure(
    512,
    magic=(0x00, "<u4"),
    majorVersion=(0x04, "<u4"),
    minorVersion=(0x08, "<u4"),
    scsiDiskId=(0x0C, "(78,)u1"),
    diskBlockSize=(0x5A, "<u4"),
    totalBytes=(0x5E, "<u8"),
    numVolumes=(0x66, "<u4"),
    numPEs=(0x6A, "<u4"),
    generation=(0x72, "<u8"),
    dataOffset=(0x7A, "<u8"),
    deviceUUID=(0x82, "(16,)u1"),
    numPEMaps=(0xBE, "<u4"),
    extDevMetadataOffset=(0xC2, "<u8"),
    mdAlignment=(0xCA, "<u4"),
    flags=(0xD2, "<u4"),
)

LVM_VolumeDescriptor = structure(
    512,
    size=(0x00, "<u8"),
    generation=(0x08, "<u8"),
    state=(0x10, "<u4"),
    name=(0x14, "(64,)u1"),
    uuid=(0x54, "(16,)u1"),
    snapshotID=(0x64, "<u4"),
    id=(0x70, "<u4"),
    numPEs=(0x74, "<u4"),
    firstPE=(0x78, "<u8"),
    lastPE=(0x80, "<u8"),
    numDevs=(0x90, "<u4"),
)

LVM_PEDescriptor = structure(
    128,
    used=(0, "u1"),
    peId=(1, "<u4"),
    volumeId=(5, "<u4"),
    physicalOffset=(9, "<u8"),
    logicalOffset=(17, "<u8"),
    length=(25, "<u8"),
)

LVM_ExtDevMetadata = structure(
    24,
    magic=(0x00, "<u4"),
    numPEMaps=(0x04, "<u4"),
    dataOffset=(0x08, "<u8"),
    nextOffset=(0x10, "<u8"),
)
