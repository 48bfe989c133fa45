"""What a job run's results add up to."""

from __future__ import annotations

import pytest

from jobs.outcome import Outcome, Report, VmResult
from vcbproxy.errors import CredentialsError, Error, NothingProtected, Partial, SourceError

OK, PARTIAL, FAILED = Outcome.OK, Outcome.PARTIAL, Outcome.FAILED


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
        ([], FAILED),
    ],
)
def test_only_all_ok_is_ok(outcomes, sum_):
    assert report(*outcomes).outcome is sum_


@pytest.mark.parametrize(
    ("outcomes", "error"),
    [([], NothingProtected), ([OK, FAILED], Partial), ([PARTIAL], Partial), ([FAILED, FAILED], Error)],
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
