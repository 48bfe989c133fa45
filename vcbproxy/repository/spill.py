"""Where an index sets aside what is too much for memory: nameless runs, gone with the process."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vcbproxy.repository.indexrun import Run
from vcbproxy.repository.runfile import Damaged
from vcbproxy.repository.runwriter import RunWriter, merged
from vcbproxy.repository.sealedrun import SealedRun

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SetAside:
    """A new run, and those that are in it."""

    run: SealedRun
    swallowed: tuple[SealedRun, ...]


class Spill:
    """Writes rows to files in one directory. When it cannot it says so once, and all stays in memory."""

    def __init__(self, directory: Callable[[], Path], secret: bytes) -> None:
        """Use a directory, asked for when it is needed first, and seal with ``secret``."""
        self.directory = directory
        self._secret = secret
        self._failed = False

    def merged(self, held: Sequence[Run], older: list[SealedRun]) -> SetAside | None:
        """Write runs to a file, together with older ones that are not twice as long; None when that cannot be."""
        if self._failed:
            return None
        size = sum(map(len, held))
        swallowed: list[SealedRun] = []
        for run in sorted(older, key=len):
            if len(run) >= 2 * size:
                break
            swallowed.append(run)
            size += len(run)
        directory = self.directory()
        try:
            with RunWriter(directory, self._secret) as writer:
                for rows in merged([*(run.scan() for run in held), *(run.scan() for run in swallowed)]):
                    writer.append(rows)
                return SetAside(writer.nameless(), tuple(swallowed))
        except (OSError, Damaged) as error:
            self._failed = True
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            log.warning("the index stays in memory: nothing can be set aside in %s: %s", directory, reason)
            return None


def scratch_directory() -> Path:
    """For what may be large and goes with the process: not /tmp, which may be memory itself."""
    return Path(os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108  # mkstemp makes the names
