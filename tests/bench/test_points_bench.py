"""Ten thousand restore points of a hundred VMs: listed, and judged by a rule, by the program as a user runs it.

make bench
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.bench import image, measure
from tests.bench.measure import Row
from tests.bench.test_backup_bench import newest_restic, version
from tests.repository.repositories import PASSWORD, START, made, write_point
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.snapshot import Snapshot, Summary

POINTS = 10_000
CPU_MAX_S = 4.0


@pytest.fixture
def repository() -> Iterator[Path]:
    backend = MemoryBackend()
    opened = made(backend)
    tree = write_point(opened, scsi0_0="ab").point.tree
    summary = Summary(START, START, 1, 1, 1, 1, 1, 1, 1)
    for number in range(POINTS - 1):
        vm = f"vm{number % 100}"
        tags = ("vcbproxy", f"vm:50-{vm}", "method:incremental")
        time = START - timedelta(hours=number // 4, seconds=number)
        opened.save_snapshot(Snapshot("", time, tree, (f"/{vm}",), vm, "backup", tags), summary)
    with tempfile.TemporaryDirectory(prefix="points-", dir=image.cache()) as directory:
        place = Path(directory) / "repository"
        for name, content in backend.files().items():
            path = place / name.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (place / "locks").mkdir(exist_ok=True)
        yield place


@pytest.mark.bench
def test_ten_thousand_restore_points(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    password = repository.with_name("password")
    password.write_text(PASSWORD)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VCBPROXY_")}
    own = {"VCBPROXY_REPO": str(repository), "VCBPROXY_PASSWORD_FILE": str(password)}
    cache = {"RESTIC_PASSWORD": PASSWORD, "RESTIC_CACHE_DIR": str(repository.with_name("cache"))}
    environment = {**clean, **own, **cache}
    vcbproxy, restic = (sys.executable, "-m", "vcbproxy"), newest_restic()
    listed = subprocess.run([*vcbproxy, "points", "list"], env=environment, capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) == POINTS + 1
    rule = ("--keep-within", "3d", "--keep-daily", "14", "--keep-weekly", "8", "--keep-monthly", "12")
    rows = [
        Row("restic snapshots", measure.run([restic, "-q", "-r", repository, "snapshots"], environment)),
        Row("vcbproxy points list", measure.run([*vcbproxy, "points", "list"], environment)),
        Row("vcbproxy forget --dry-run", measure.run([*vcbproxy, "forget", "--dry-run", *rule], environment)),
    ]
    capfd.readouterr()
    with capfd.disabled():
        print(measure.table(f"{POINTS} restore points in a directory; {version(restic)}", rows))
    assert all(row.taken.cpu_s <= CPU_MAX_S for row in rows[1:])
