"""Where this machine keeps what it may forget: copies of what the repository holds, to be quicker the next time.

    $CACHE_DIRECTORY                   set by systemd for a unit with CacheDirectory=
    $XDG_CACHE_HOME/vcbproxy           else
    /var/cache/vcbproxy                else, for whom it belongs to; for root when there is none
    ~/.cache/vcbproxy                  else
      CACHEDIR.TAG                     tells backup programs to pass it over (https://bford.info/cachedir/)
      <id of the repository>/<part>/   one directory for each use

All of it may be deleted at any time, also while programs run. Whoever keeps something here must bear that it is gone,
damaged, or written by another process at the same time; and never believe it more than what it was made from.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from vcbproxy.repository.ids import is_hex_id

log = logging.getLogger(__name__)

SYSTEM_ROOT = Path("/var/cache/vcbproxy")
_MODE = 0o700
_TAG = "CACHEDIR.TAG"
# The first line is what the specification wants, to the letter.
_TAG_TEXT = """Signature: 8a477f597d28d172789f06886806bc55
# This directory is a cache of vcbproxy's; it may be deleted at any time.
"""


def default_root(environ: Mapping[str, str] = os.environ, system: Path = SYSTEM_ROOT) -> Path:
    """The directory of all caches of ours; it need not exist. Relative paths in the environment are passed over.

    One directory serves one user: what root wrote into the service's, the service could not read.
    """
    for name, below in (("CACHE_DIRECTORY", ""), ("XDG_CACHE_HOME", "vcbproxy")):
        given = environ.get(name, "").split(":")[0]  # systemd separates several by colons
        if Path(given).is_absolute():
            return Path(given) / below
    try:
        owner = system.stat().st_uid
    except OSError:
        owner = 0
    if owner == os.geteuid():
        return system
    return Path(environ.get("HOME", "/nonexistent")) / ".cache" / "vcbproxy"


@lru_cache(maxsize=64)  # so that what is wrong with it is said once
def opened(root: Path, repository_id: str, part: str) -> Path | None:
    """The directory for one part of what is cached of one repository, made if it is missing.

    Returns:
        None when it cannot be used: then the work is done without a cache, which is only slower. Why is said once.
    """
    assert is_hex_id(repository_id), f"not an id: {repository_id!r}"
    try:
        _make(root)
        _tag(root)
        for directory in (root / repository_id, root / repository_id / part):
            _make(directory)
    except OSError as error:
        log.warning("no cache in %s: %s; going on without, more slowly", root, error.strerror or error)
        return None
    return root / repository_id / part


def _make(directory: Path) -> None:
    """Make it, and see that nobody but us can write there.

    Raises:
        OSError: it cannot be made or written, or belongs to someone else.
    """
    directory.mkdir(mode=_MODE, parents=True, exist_ok=True)
    found = directory.stat()
    if found.st_uid != os.geteuid():
        raise OSError(f"{directory} belongs to user {found.st_uid}")
    if stat.S_IMODE(found.st_mode) & 0o022:
        raise OSError(f"others may write to {directory} (mode {stat.S_IMODE(found.st_mode):04o})")
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise OSError(f"{directory} cannot be written")


def _tag(root: Path) -> None:
    with suppress(FileExistsError):
        (root / _TAG).touch(mode=0o644, exist_ok=False)
        (root / _TAG).write_text(_TAG_TEXT, "ascii")
