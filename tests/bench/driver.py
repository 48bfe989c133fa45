"""Backs up and restores a raw image through the product's own data path, with no manager and no LUN around it.

python -m tests.bench.driver init|backup|restore|verify REPOSITORY [IMAGE]
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from vcbproxy.device import FileDevice
from vcbproxy.pipeline import backup, restore
from vcbproxy.pipeline.chunker import Rule
from vcbproxy.repository.backend.directory import DirectoryBackend
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.target import PointInfo, RepositoryTarget

PASSWORD = "bench"


def opened(path: Path) -> Repository:
    return Repository.open(DirectoryBackend(path), PASSWORD)


def back_up(path: Path, image: Path) -> None:
    repository = opened(path)
    rule = Rule(repository.config.polynomial_hex.encode(), repository.chunker.window)
    info = PointInfo("bench", "5ea1ab1e-0000-4000-8000-000000000001", datetime.now(UTC))
    with FileDevice(image) as disk, RepositoryTarget(repository).begin(info) as point:
        sink = point.disk("scsi0-0", disk.size_bytes)
        content = backup.copy_disk(disk, sink, rule)
        sink.finish(content.ids, content.lengths)
        point.commit({})
    print(content.stats)


def bring_back(path: Path, image: Path | None) -> None:
    target = RepositoryTarget(opened(path))
    with target.open("bench@latest") as point:
        ids, lengths = point.disk_content("scsi0-0")
        if image is None:
            restore.verify_disk(point, ids, lengths)
        else:
            restore.restore_disk(point, ids, lengths, image)


def main(verb: str, repository: str, image: str | None = None) -> None:
    path = Path(repository)
    if verb == "init":
        Repository.init(DirectoryBackend(path), PASSWORD)
    elif verb == "backup":
        assert image is not None
        back_up(path, Path(image))
    else:
        assert verb in ("restore", "verify"), verb
        bring_back(path, Path(image) if image else None)


if __name__ == "__main__":
    main(*sys.argv[1:])
