"""Descriptors: what is understood, and what is refused by name."""

import pytest

from tests.vmdk.builders import descriptor
from vcbproxy.errors import VmdkError
from vcbproxy.vmdk.descriptor import Descriptor, ExtentLine, ExtentType, parse

ESXI = b"""# Disk DescriptorFile
version=3
encoding="UTF-8"
CID=7c1f0a11
parentCID=ffffffff
isNativeSnapshot="no"
createType="vmfs"

# Extent description
RW 83886080 VMFS "web01-flat.vmdk"

# Change Tracking File
changeTrackPath="web01-ctk.vmdk"

# The Disk Data Base 
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "5221"
ddb.longContentID = "e2f65ac84feef46a1815c03c7c1f0a11"
ddb.thinProvisioned = "1"
ddb.uuid = "60 00 C2 9a 81 87 b4 5a-a0 59 e6 9d da b6 d0 47"
ddb.virtualHWVersion = "19"
"""  # noqa: W291 - ESXi writes that blank

SNAPSHOT = b"""# Disk DescriptorFile
version=1
encoding="windows-1252"
CID=0000000b
parentCID=7c1f0a11
isNativeSnapshot="no"
createType="seSparse"
parentFileNameHint="/vmfs/volumes/4f1c-ab/b\xfcro/web01.vmdk"
# Extent description
RW 83886080 SESPARSE "web01-000001-sesparse.vmdk"
"""


def good(data: bytes) -> Descriptor:
    return parse(data, "web01.vmdk")


def refusal(data: bytes) -> str:
    with pytest.raises(VmdkError) as caught:
        parse(data, "web01.vmdk")
    message = str(caught.value)
    assert message.startswith("web01.vmdk: ")
    assert "\n" not in message
    return message


def test_reads_a_base_disk_as_esxi_writes_it():
    found = good(ESXI)
    assert (found.version, found.cid, found.parent_cid, found.parent_hint) == (3, 0x7C1F0A11, None, None)
    assert found.create_type == "vmfs"
    assert found.extents == (ExtentLine(83886080, ExtentType.VMFS, "web01-flat.vmdk", 0),)
    assert found.ddb["ddb.uuid"].startswith("60 00 C2 9a")
    assert found.sectors == 83886080


def test_reads_a_snapshot_in_its_own_encoding():
    found = good(SNAPSHOT)
    assert (found.cid, found.parent_cid) == (0xB, 0x7C1F0A11)
    assert found.parent_hint == "/vmfs/volumes/4f1c-ab/büro/web01.vmdk"


def test_older_hosts_keep_the_encoding_in_the_database():
    old = SNAPSHOT.replace(b'encoding="windows-1252"\n', b"") + b'ddb.encoding = "windows-1252"\nddb.grain = "8"\n'
    assert good(old).parent_hint == "/vmfs/volumes/4f1c-ab/büro/web01.vmdk"


def test_reads_windows_line_ends_and_padding():
    assert good(ESXI.replace(b"\n", b"\r\n")) == good(ESXI)
    assert good(ESXI + bytes(700)) == good(ESXI)


def test_reads_what_qemu_img_leaves_behind_a_shorter_cid():
    """It rewrites the text in place, with fewer digits now: the old text's tail stays behind the NUL."""
    assert good(ESXI + b"\0" + ESXI[-3:] + bytes(500)) == good(ESXI)


def test_reads_flat_split_and_zero_extents():
    lines = ['RW 100 FLAT "a-f001.vmdk" 0', "RW 50 ZERO", 'RDONLY 30 FLAT "a-f002.vmdk" 7']
    found = good(descriptor("twoGbMaxExtentFlat", lines))
    assert [extent.type for extent in found.extents] == [ExtentType.FLAT, ExtentType.ZERO, ExtentType.FLAT]
    assert found.extents[2] == ExtentLine(30, ExtentType.FLAT, "a-f002.vmdk", 7)
    assert found.sectors == 180


@pytest.mark.parametrize(
    ("create_type", "reason"),
    [
        ("vmfsRDM", "extent of type VMFS"),
        ("vmfsRawDeviceMap", "extent of type VMFS"),
        ("vmfsRDMP", "physical mode"),
        ("vmfsPassthroughRawDeviceMap", "physical mode"),
        ("vmfsRaw", "raw LUN"),
        ("fullDevice", "raw LUN"),
        ("partitionedDevice", "raw LUN"),
        ("custom", "by hand"),
        ("vsanSparse", "vSAN"),
        ("VMFS", "unknown createType"),
        ("", "unknown createType"),
    ],
)
def test_refuses_disks_that_are_not_files_by_name(create_type, reason):
    assert reason in refusal(descriptor(create_type, ['RW 10 VMFS "a-flat.vmdk"']))


def test_reads_a_raw_device_mapping():
    """As ESXi writes it in virtual mode; in physical mode only the createType differs, and is refused."""
    line = 'RW 14615052288 VMFSRDM "a-rdm.vmdk"'
    assert good(descriptor("vmfsRawDeviceMap", [line])).extents == (
        ExtentLine(14615052288, ExtentType.RAW_MAP, "a-rdm.vmdk", 0),
    )
    assert "physical mode" in refusal(descriptor("vmfsPassthroughRawDeviceMap", [line]))
    assert "2 extents" in refusal(descriptor("vmfsRawDeviceMap", [line, line.replace("a-", "b-")]))
    assert "1 extents" in refusal(descriptor("vmfsRawDeviceMap", ["RW 10 ZERO"]))
    assert "a disk that has a parent" in refusal(
        descriptor("vmfsRawDeviceMap", [line], parent_cid="0000000a", parent="b.vmdk")
    )
    assert "createType vmfs" in refusal(descriptor("vmfs", [line]))


@pytest.mark.parametrize("word", ["VMFSRAW", "VSANSPARSE", "NFS", "vmfs"])
def test_refuses_extents_of_other_types(word):
    assert "extent line" in refusal(descriptor("vmfs", [f'RW 10 {word} "a-rdm.vmdk"']))


@pytest.mark.parametrize(
    "name",
    ["../other/a-flat.vmdk", "/etc/shadow", "/vmfs/volumes/x/a-flat.vmdk", "sub/a.vmdk", "..", ".", "", "a\\b",
     "vsan://52d8c6a2", "a\x01b"],
)  # fmt: skip
def test_refuses_extents_that_are_not_beside_the_descriptor(name):
    refusal(descriptor("vmfs", [f'RW 10 VMFS "{name}"']))


@pytest.mark.parametrize(
    "line",
    [
        'RW 0 VMFS "a-flat.vmdk"',
        'RW -1 VMFS "a-flat.vmdk"',
        'RW 99999999999999999999999 VMFS "a-flat.vmdk"',
        'RW 999999999999999999 VMFS "a-flat.vmdk"',
        'RW 1e3 VMFS "a-flat.vmdk"',
        'RW ten VMFS "a-flat.vmdk"',
        "RW 10 VMFS a-flat.vmdk",
        'RW 10 VMFS "a-flat.vmdk',
        "RW 10 VMFS",
        'RW 10 VMFS "a-flat.vmdk" 8',
        'RW 10 VMFS "a-flat.vmdk" 0 junk',
        'RW 10 ZERO "a-flat.vmdk"',
        'NOACCESS 10 VMFS "a-flat.vmdk"',
        'rw 10 VMFS "a-flat.vmdk"',
        'RW 10 FLAT "a-flat.vmdk" 0',
        'RW 10 SESPARSE "a-flat.vmdk"',
        'RW \u0661\u0660 VMFS "a-flat.vmdk"',
    ],
)
def test_refuses_extent_lines_that_do_not_fit(line):
    refusal(descriptor("vmfs", [line]))


def test_refuses_a_flat_extent_without_its_offset():
    assert "without the offset" in refusal(descriptor("monolithicFlat", ['RW 10 FLAT "a-flat.vmdk"']))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"version=3", b"version=4", "version"),
        (b"version=3\n", b"", "version"),
        (b'encoding="UTF-8"', b'encoding="UTF-7"', "encoding"),
        (b'encoding="UTF-8"', b'encoding="UTF-16LE"', "encoding"),
        (b'encoding="UTF-8"', b'encoding="zlib"', "encoding"),
        (b'encoding="UTF-8"', b'encoding="UTF 8"', "encoding"),
        (b'encoding="UTF-8"', b'encoding=""', "encoding"),
        (b'encoding="UTF-8"', b'encoding="cp1252" "UTF-8"', "not understood"),
        (b"web01-flat", b"b\xfcro-flat", "not UTF-8"),
        (b"CID=7c1f0a11\np", b"p", "CID is missing"),
        (b"CID=7c1f0a11\np", b"CID=xyz\np", "CID is 'xyz'"),
        (b"parentCID=ffffffff\n", b"", "parentCID is missing"),
        (b"CID=7c1f0a11\np", b"CID=7c1f0a11\nCID=7c1f0a11\np", "CID a second time"),
        (b"CID=7c1f0a11\np", b"CID=7c1f0a11\nCID=1\np", "CID a second time"),
        (b'createType="vmfs"\n', b'createType="vmfs"\ncreateType="vmfs"\n', "createType a second time"),
        (b"ddb.thin", b'ddb.adapterType = "ide"\nddb.thin', "second, different"),
        (b"#DDB", b"something else", "not understood"),
        (b"#DDB", b"surprise=1", "unknown key 'surprise'"),
        (b"#DDB", b"cid=00000001", "unknown key 'cid'"),
        (b"#DDB", b'keyID="x"', "encrypted"),
        (b"#DDB", b'encryptionKeys="vmware:key/list/x"', "encrypted"),
        (b"#DDB", b'ddb.iofilters = "vmwarevmcrypt"', "vmwarevmcrypt"),
        (b"#DDB", b'ddb.iofilters = "VMW_spm_1.0.0,acme_cache"', "acme_cache"),
        (b'isNativeSnapshot="no"', b'isNativeSnapshot="yes"', "native snapshot"),
        (b"parentCID=ffffffff", b"parentCID=00000001", "no parentFileNameHint"),
        (b"#DDB", b'parentFileNameHint="base.vmdk"', "says it has none"),
        (b'RW 83886080 VMFS "web01-flat.vmdk"', b"", "no extent lines"),
        (b"web01-flat", b"web01\0flat", "NUL"),
        (b"#DDB", b"x" * 5000, "5000 characters"),
        (b"#DDB", b'ddb.a = "b\x1b[2J"', "control characters"),
    ],
)
def test_refuses_what_could_change_the_bytes(old, new, reason):
    assert old in ESXI
    assert reason in refusal(ESXI.replace(old, new, 1))


@pytest.mark.parametrize("filters", [b"VMW_spm_1.0.0", b"vmwarelwd", b"VMW_vmwarelwd_1.0.0", b""])
def test_io_filters_that_only_look_are_fine(filters):
    good(ESXI.replace(b"#DDB", b'ddb.iofilters = "' + filters + b'"'))


def test_refuses_a_flat_extent_that_would_hide_its_parent():
    data = descriptor("vmfs", ['RW 10 VMFS "a-flat.vmdk"'], parent_cid="00000001", parent="base.vmdk")
    assert "has a parent" in refusal(data)


def test_refuses_a_zero_extent_that_would_hide_its_parent():
    data = descriptor("seSparse", ["RW 8 ZERO"], parent_cid="00000001", parent="x.vmdk")
    assert "an extent of type ZERO in a disk that has a parent" in refusal(data)


def test_refuses_a_delta_without_its_parent():
    """Mended by hand, with the parent left out: its unwritten grains are not zeroes."""
    data = descriptor("vmfsSparse", ['RW 8 VMFSSPARSE "x-delta.vmdk"'])
    assert "vmfsSparse is a snapshot's delta, and it names no parent" in refusal(data)


@pytest.mark.parametrize("data", [b"", b"\0" * 512, b"\x7fELF" + bytes(range(256)), b"KDMV", b"hello", b"\xff\xfe#\0"])
def test_refuses_other_files(data):
    assert "not a VMDK descriptor" in refusal(data) or "not understood" in refusal(data)


def test_refuses_a_flat_file_in_place_of_a_descriptor():
    assert "too many" in refusal(b"\n" * (2 << 20))
