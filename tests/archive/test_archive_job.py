"""From the LUN onto cartridges and back, bit for bit: by our command's job, and by cat, zstd and sha256sum alone."""

from __future__ import annotations

from pathlib import Path

from tests.archive.tapes import Tapes, by_hand, disks_in, spec


def test_a_vm_comes_back_bit_for_bit(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, spec("vm1")) as tapes:
        report = tapes.backed_up("vm1")
        report.raise_unless_ok()
        [point] = tapes.ledger.points
        assert report.results[0].point == point.id
        assert report.results[0].media is not None
        assert report.results[0].media["barcodes"] == ["TAP001L8"]
        tapes.restored(tmp_path / "back", point).raise_unless_whole()
        assert disks_in(tmp_path / "back" / "vm1") == tapes.truth("vm1")
        assert (tmp_path / "back" / "vm1" / "vm1.vmx").read_bytes()
        said = by_hand(tapes.shelf, point, tmp_path / "hand")
        assert disks_in(tmp_path / "hand") == tapes.truth("vm1")
        assert "scsi0-0.raw: OK" in said
        assert "FAILED" not in said
