"""Every fault at every step of a backup: what comes of it is what docs/fault-matrix.md says. ``-s`` shows the rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.jobs import matrix
from tests.jobs.matrix import CELLS, Cell
from tests.jobs.rehearsal import SPEC, Stage
from tests.program import ROOT
from tests.real import stock_restic
from tests.real.stock_restic import Restic
from tests.repository.faulty import FailingBackend
from tests.repository.repositories import PASSWORD

PAGE = matrix.rows_of((ROOT / "docs" / "fault-matrix.md").read_text())
TOLD = ("is not removed", "still need consolidation", "a snapshot may still appear")
FOR_RESTIC = ("chunks stored", "index stored", "restore point committed", "last disk to be looked at again: Ctrl-C")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage.opened(tmp_path_factory.mktemp("stage") / "lab", SPEC) as stage:
        yield stage


def test_the_page_has_a_row_for_every_cell() -> None:
    assert list(PAGE) == [cell.name for cell in CELLS]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_it_ends_as_the_page_says(stage: Stage, cell: Cell, tmp_path) -> None:
    row, run = matrix.play(stage, cell)
    print(f"\n{cell.step:32} {row}", end="")
    try:
        assert row == PAGE[cell.name], run.text
        assert stage.valid(run.backend) == run.points_before + (run.code in (0, 3))
        if run.code in (0, 3):
            assert stage.restores(run.backend)
        if row.left != "nothing":
            assert any(words in run.text for words in TOLD), run.text
    finally:  # what is left by now: a task that hung may have ended
        there = ["removed vm1"] if stage.ours() else ["consolidated vm1"] if stage.unmerged() else []
        done = stage.cleaned_up()
    assert done == there
    assert stage.ours() == []
    assert not stage.unmerged()
    assert stage.next_run_succeeds(run)
    assert stage.restores(run.backend)
    stage.valid(run.backend)
    if cell.name.startswith(FOR_RESTIC):
        restic_finds_it_whole(run.backend, tmp_path)


def restic_finds_it_whole(backend: FailingBackend, tmp_path) -> None:
    for name, content in backend.files().items():
        path = tmp_path / "repo" / name.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for program in stock_restic.programs()[:1]:
        Restic(program, tmp_path / "repo", PASSWORD, tmp_path)("check", "--read-data")
