"""What a job run's results add up to."""

from __future__ import annotations

import pytest

from jobs.outcome import DiskResult, Outcome, Report, VmResult
from vcbproxy.errors import CredentialsError, Error, NothingProtected, Partial, SourceError

OK, ALARM, PARTIAL, FAILED = Outcome.OK, Outcome.ALARM, Outcome.PARTIAL, Outcome.FAILED


def report(*outcomes: Outcome) -> Report:
    return Report(tuple(VmResult(f"vm{n}", outcome) for n, outcome in enumerate(outcomes)))


@pytest.mark.parametrize(
    ("outcomes", "sum_"),
    [
        ([OK], OK),
        ([OK, OK], OK),
        ([OK, FAILED], PARTIAL),
        ([PARTIAL], PARTIAL),
        ([FAILED, PARTIAL], PARTIAL),
        ([FAILED, FAILED], FAILED),
        ([ALARM], ALARM),
        ([OK, ALARM], ALARM),
        ([ALARM, PARTIAL], PARTIAL),
        ([ALARM, FAILED], PARTIAL),
        ([], FAILED),
    ],
)
def test_only_all_ok_is_ok(outcomes, sum_):
    assert report(*outcomes).outcome is sum_


@pytest.mark.parametrize(
    ("outcomes", "error"),
    [
        ([], NothingProtected),
        ([OK, FAILED], Partial),
        ([PARTIAL], Partial),
        ([OK, ALARM], Partial),
        ([FAILED, FAILED], Error),
    ],
)
def test_anything_else_is_an_error_with_its_code(outcomes, error):
    with pytest.raises(error):
        report(*outcomes).raise_unless_ok()


def test_a_single_failure_keeps_its_own_exit_code():
    failed = Report((VmResult("vm1", FAILED, error=SourceError("gone")),))
    with pytest.raises(SourceError, match="gone"):
        failed.raise_unless_ok()
    refused = Report((VmResult("vm1", FAILED, error=CredentialsError("no")),))
    with pytest.raises(CredentialsError):
        refused.raise_unless_ok()


def test_success_is_silent():
    report(OK, OK).raise_unless_ok()


def test_a_snapshot_that_is_left_is_not_called_lack_of_protection():
    """The disks are safe; whoever is woken at night should know which of the two it is."""
    good = DiskResult("scsi0-0", 1)
    lost = DiskResult("scsi0-1", 1, error="no LUN")
    left = VmResult("vm1", PARTIAL, disks=(good,), snapshot_left="still there")
    both = VmResult("vm2", PARTIAL, disks=(good, lost), snapshot_left="still there")
    with pytest.raises(Partial, match=r"^a VM snapshot or its links are left behind: vm1$"):
        Report((left,)).raise_unless_ok()
    with pytest.raises(
        Partial, match=r"^not fully protected: vm2 \(1 of 3 VMs\); a VM .* left behind: vm1 \(1 of 3 VMs\)$"
    ):
        Report((VmResult("vm0", OK), left, both)).raise_unless_ok()


def test_an_alarm_among_other_trouble_is_still_told():
    results = (VmResult("vm0", OK), VmResult("vm1", FAILED), VmResult("vm2", ALARM))
    with pytest.raises(
        Partial, match=r"^not fully protected: vm1 .*; backed up, but change tracking had lied .*: vm2 "
    ):
        Report(results).raise_unless_ok()
