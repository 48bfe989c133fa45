"""Structures of VMFS-3, -5 and -6, in the vendor's names where known. Offsets only; meanings live where they are used.

Sources: VMFS-5 and VMFS-6 volumes made by ESXi in 2025, VMFS-3 volumes of 2009, and the public descriptions of the
format.
"""

from __future__ import annotations

from vcbproxy.vmfs.layout import structure

FS3_DESCRIPTOR_OFFSET = 0x200000
FS3_MAGIC = 0x2FABF15E
FS3_MAGIC_LOCAL = 0x2FABF15F  # VMFS-L
FS3_MAJORS = {4: 3, 14: 5, 24: 6}  # on disk → what people call it; seen on ESXi-made volumes
FS3_MAJOR_6 = 24  # below it everything is laid out as in VMFS-3 and -5
FS3_CONFIG_DENSE_SBPC = 0x4

FS3_Descriptor = structure(
    512,
    magic=(0x00, "<u4"),
    majorVersion=(0x04, "<u4"),
    minorVersion=(0x08, "u1"),
    uuid=(0x09, "(16,)u1"),
    config=(0x19, "<u4"),
    fsLabel=(0x1D, "(128,)u1"),
    diskBlockSize=(0x9D, "<u4"),
    fileBlockSize=(0xA1, "<u8"),
    creationTime=(0xA9, "<u4"),
    lvUUID=(0xB1, "(16,)u1"),
    fdcClusterGroupOffset=(0xD1, "<u4"),
    fdcClustersPerGroup=(0xD5, "<u4"),
    subBlockSize=(0xD9, "<u4"),
    pb2VolAddr=(0xE1, "<u8"),
    pb2FDAddr=(0xE9, "<u4"),
    mdAlignment=(0x134, "<u4"),
    sfbToLfbShift=(0x138, "<u2"),
    ptrBlockShift=(0x13E, "<u2"),
    tbzGranularity=(0x144, "<u4"),
)

# Lock block and metadata block of a file descriptor; the second one's offsets are from its own start.
FS3_FD_MAGIC = 0x10C00001
FS3_DiskLock = structure(
    0x40,
    type=(0x00, "<u4"),
    address=(0x04, "<u8"),
    token=(0x1C, "<u8"),
    mode=(0x24, "<u4"),
)

FS3_FileMetadata = structure(
    0x90,
    fdAddr=(0x00, "<u4"),
    generation=(0x04, "<u4"),
    linkCount=(0x08, "<u4"),
    type=(0x0C, "<u4"),
    flags=(0x10, "<u4"),
    length=(0x14, "<u8"),
    blockSize=(0x1C, "<u8"),
    numBlocks=(0x24, "<u8"),
    mtime=(0x2C, "<u4"),
    ctime=(0x30, "<u4"),
    atime=(0x34, "<u4"),
    uid=(0x38, "<u4"),
    gid=(0x3C, "<u4"),
    mode=(0x40, "<u4"),
    zla=(0x44, "<u4"),
    numTBZLo=(0x48, "<u4"),
    numTBZHi=(0x54, "<u4"),
    tbzGranularityShift=(0x6C, "<u4"),
    parentFD=(0x70, "<u4"),
    numLFB=(0x8C, "<u4"),
)

FS3_FDC_BASE = 4 << 20  # VMFS-3/5: the file descriptors start in the block that holds this offset, and never in block 0
FS3_FD_SIZE = 2048
FS3_FD_METADATA_OFFSET = 512
FS3_FD_DATA_OFFSET = 1024
FS3_CLUSTER_HEADER_SIZE = 1024
FS3_POINTERS_PER_FD = 256
SCSI_DISK_ID_SIZE = 78
FS6_RFMD_SIGNATURE = 0x72666D64
FS6_FD_POINTERS_SIZE = 2560
FS6_SFBS_PER_CLUSTER_MAX = 8192
FS6_SFB_CLUSTER_BYTES = 512 << 20

FS3_ResourceHeader = structure(
    0x38,
    resourcesPerCluster=(0x00, "<u4"),
    clustersPerGroup=(0x04, "<u4"),
    clusterGroupOffset=(0x08, "<u4"),
    resourceSize=(0x0C, "<u4"),
    clusterGroupSize=(0x10, "<u4"),
    numResourcesLo=(0x14, "<u4"),
    numResourcesHi=(0x1C, "<u4"),
    signature=(0x20, "<u4"),
)

FS3_DirEntry = structure(
    140,
    type=(0, "<u4"),
    fdAddr=(4, "<u4"),
    generation=(8, "<u4"),
    name=(12, "(128,)u1"),
)

FS6_DIR_HEADER_SIZE = 0x10000
FS6_DIR_VERSIONS = (0xF50001, 0xFDC001)
FS6_DIR_MAX_MAPS = 128
FS6_DIR_BLOCK_HEADER_SIZE = 64
FS6_DIR_BLOCK_TYPES = {1: "entries", 2: "links", 3: "map"}

FS6_DirHeader = structure(
    0x5F8,
    version=(0x00, "<u4"),
    numEntries=(0x04, "<u4"),
    numAllocated=(0x08, "<u4"),
    numMapBlocks=(0x0C, "<u4"),
    mapBlocks=(0x10, "(128,)<u4"),
    self=(0x3B8, "(288,)u1"),
    parent=(0x4D8, "(288,)u1"),
)

FS6_DirBlockHeader = structure(
    64,
    version=(0, "<u2"),
    type=(2, "<u2"),
    totalSlots=(4, "<u2"),
    freeSlots=(6, "<u2"),
    bitmap=(8, "(56,)u1"),
)

FS6_DirEntry = structure(
    0x120,
    type=(0, "<u4"),
    fdAddr=(4, "<u4"),
    generation=(8, "<u4"),
    offset=(0x10, "<u8"),
    name=(0x18, "(256,)u1"),
)
