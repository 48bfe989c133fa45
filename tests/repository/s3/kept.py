"""A lab whose backups go into a bucket."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from tests.program import Lab, Program
from tests.seaweed import ADMIN

CONFIGURATION = """
[repository]
location = "{location}"
password_file = "repo.password"

[repository.s3]
{more}
"""
PATIENCE = """
[repository.traffic]
retry_s = {patience_s}
"""


def keep_in_bucket(lab: Lab, location: str, more: str = "", patience_s: float = 60) -> Lab:
    """The same lab, whose backups go into a bucket."""
    before, _, rest = (lab.directory / "vcbproxy.toml").read_text().partition("[repository]")
    after = rest.partition("\n[")[2]
    ours = CONFIGURATION.format(location=location, more=more) + PATIENCE.format(patience_s=patience_s)
    config = lab.directory / "bucket.toml"
    config.write_text(before + ours + (f"[{after}" if after else ""))
    cache = lab.directory / "cache"
    return replace(lab, vcbproxy=Program(config, CACHE_DIRECTORY=str(cache), **ADMIN.environment))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
