"""The kernel's table of mounts."""

from __future__ import annotations

from pathlib import Path

from vcbproxy import mounts


def test_the_kernels_table_of_mounts_is_read_as_it_is_written() -> None:
    table = (
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "90 22 0:50 / /mnt rw - nfs4 filer:/vol/old rw,vers=4.2\n"
        "91 22 0:51 / /mnt rw - nfs filer.example.com:/vol/with\\040blank rw,vers=3\n"
        "92 91 0:52 / /mnt/a\\040b rw - tmpfs tmpfs rw\n"
        "torn line\n"
    )
    found = mounts.covering(Path("/mnt/x"), table)
    assert found == mounts.Mount(Path("/mnt"), "nfs", "filer.example.com:/vol/with blank")
    assert found.is_nfs
    inner, outer = mounts.covering(Path("/mnt/a b/c"), table), mounts.covering(Path("/mntx"), table)
    assert inner is not None
    assert outer is not None
    assert (inner.kind, outer.kind) == ("tmpfs", "ext4")
