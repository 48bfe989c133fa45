"""An error that nobody has thought of, met at one VM, is that VM's failure, with a traceback, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.choices import Choices
from jobs.outcome import Outcome
from tape.errors import TapeError
from tests.jobs.rehearsal import Stage, Upset


@pytest.mark.parametrize("moment", ["freezing", "frozen", "disk 2 begins", "releasing", "released"])
def test_a_fault_of_our_own_costs_one_vm(tmp_path: Path, caplog: pytest.LogCaptureFixture, moment: str) -> None:
    def trip() -> None:
        raise ZeroDivisionError("a bug of ours")

    with Stage.opened(tmp_path / "lab") as stage:
        run = stage.run(Upset(Choices(), plans={moment: trip}))
        assert stage.result is not None, "the job run went on to its end"
        assert stage.result.outcome is Outcome.FAILED
        assert run.code == 1
        assert "nobody has thought of" in run.text
        assert "a bug of ours" in run.text
        assert "Traceback" in caplog.text
        assert run.ours == []
        assert stage.valid(run.backend) == 0
        assert stage.next_run_succeeds(run)


def test_what_is_no_mistake_of_ours_ends_the_job_run(tmp_path: Path) -> None:
    """As the tape's own errors, which are made ours further out: the drive is what all VMs share."""

    def trip() -> None:
        raise TapeError("the drive does not answer")

    with Stage.opened(tmp_path / "lab") as stage, pytest.raises(TapeError):
        stage.run(Upset(Choices(), plans={"frozen": trip}))
