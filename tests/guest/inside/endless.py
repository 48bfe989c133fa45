"""A suite that does not end: the host must end it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.guest.inside.suite import StepFunction


def steps(out: Path) -> list[StepFunction]:
    def waits() -> dict[str, Any]:
        time.sleep(3600)
        return {}

    return [waits]
