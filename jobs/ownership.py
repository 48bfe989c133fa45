"""Which job runs are alive: each holds a lock on a file of its own, and the kernel lets go of it when the process dies.

    <state directory>/
      id                      who speaks here: the first half of every job run id made in this directory
      runs/5f0e12ab-9c8d7e6f  locked (flock) for as long as its job run lives; in it, the VMs it has frozen

A VM snapshot with our marker may be removed by someone else only when its job run is dead, and that is known from
the lock alone: neither ages nor process ids can be trusted, and a clock may jump. The lock is taken before the first
snapshot is asked for and held until the last is gone; so whoever *first* sees a snapshot and *then* finds its lock
free knows that its job run has ended. Nothing that starts meanwhile can be mistaken: its id is new.

A lock says nothing about job runs elsewhere: other machines, other users of this one with a directory of their own,
a container of the same name. The directory's random id inside the job run id tells them apart. That is why the
directory must outlive a reboot; systemd's RuntimeDirectory= would also be removed under a second job run's feet.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from vcbproxy.errors import ConfigError
from vcbproxy.manager.marker import Marker

log = logging.getLogger(__name__)

SYSTEM_DIRECTORY = Path("/var/lib/vcbproxy")
_ID = re.compile(r"[0-9a-f]{8}")
_RUN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{8}")
_READABLE_BY_ALL = 0o644  # root and the service's user must see each other's locks


class Life(Enum):
    """What is known of a job run."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"  # not made in this state directory, or its file cannot be opened


@dataclass(frozen=True, slots=True)
class FrozenVm:
    """A VM that a job run froze, or was about to: where to look for what it left."""

    manager: str
    moref: str
    name: str


class JobRun:
    """A live job run. Made by ``Registry.begin``; ends with the ``with`` block, or with the process."""

    def __init__(self, marker: Marker, fd: int) -> None:
        self.marker = marker
        self._fd = fd
        self._frozen: dict[str, FrozenVm] = {}

    def freezing(self, vm: FrozenVm) -> None:
        """Note a VM before a snapshot of it is asked for; durable when this returns."""
        self._frozen[vm.moref] = vm
        self._append({"frozen": {"manager": vm.manager, "moref": vm.moref, "name": vm.name}})

    def released(self, moref: str) -> None:
        """Note that nothing of ours is left on a VM."""
        if self._frozen.pop(moref, None) is not None:
            self._append({"released": moref})

    @property
    def left(self) -> tuple[FrozenVm, ...]:
        """VMs that were frozen and not known to be released."""
        return tuple(self._frozen.values())

    def _append(self, note: object) -> None:
        line = json.dumps(note).encode() + b"\n"
        try:
            os.write(self._fd, line)
            os.fsync(self._fd)
        except (
            OSError
        ) as error:  # the lock itself holds; what is lost is a hint for a clean-up that may never be needed
            log.warning("a note on a job run could not be written: %s", error.strerror)


class Registry:
    """The job runs of one state directory."""

    def __init__(self, directory: Path, host: str) -> None:
        """Look at the directory; nothing is created before the first job run begins.

        Raises:
            ConfigError: it cannot be read.
        """
        self.directory = directory
        self.host = host
        self._runs = directory / "runs"
        self.id = self._read_id()

    @contextmanager
    def begin(self) -> Iterator[JobRun]:
        """Begin a job run, alive until the block ends.

        Its file goes with it, unless some VM was not released: then it stays for ``cleanup``.

        Raises:
            ConfigError: the state directory cannot be written to, or its file system has no locks.
        """
        self._make()
        run_id, fd = self._create()
        run = JobRun(Marker(run_id, self.host), fd)
        try:
            yield run
        finally:
            if not run.left:
                with contextlib.suppress(OSError):
                    (self._runs / run_id).unlink()
            os.close(fd)

    def _make(self) -> None:
        """Create what is missing; by root, for the user whose directory it is: the service must get in later."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = self.directory.stat()
            with contextlib.suppress(FileExistsError):
                self._runs.mkdir(mode=0o700)
                if os.geteuid() == 0:
                    os.chown(self._runs, owner.st_uid, owner.st_gid)
            if not self.id:
                _make_id(self.directory)
        except OSError as error:
            raise self._unusable(error) from error
        self.id = self._read_id()

    def _read_id(self) -> str:
        """The directory's own id; empty as long as there is none."""
        path = self.directory / "id"
        try:
            text = path.read_text("ascii", "replace").strip()
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise self._unusable(error) from error
        if _ID.fullmatch(text) is None:
            raise ConfigError(f"{path} does not hold 8 hex digits; remove it, a new one is made")
        return text

    def _create(self) -> tuple[str, int]:
        while True:
            run_id = f"{self.id}-{secrets.token_hex(4)}"
            path = self._runs / run_id
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, _READABLE_BY_ALL)
            except FileExistsError:
                continue
            except OSError as error:
                raise self._unusable(error) from error
            try:
                os.fchmod(fd, _READABLE_BY_ALL)  # whatever the umask
                fcntl.flock(fd, fcntl.LOCK_EX)  # whoever looks whether it is locked lets go at once
                if os.fstat(fd).st_nlink > 0:  # else it was swept away between its creation and its lock
                    return run_id, fd
                os.close(fd)
            except OSError as error:
                os.close(fd)
                with contextlib.suppress(OSError):
                    path.unlink()
                raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"cannot keep state in {error.filename or self.directory}: {error.strerror}; "
            "name a local directory of this user as [state] directory"
        )

    def knows(self, marker: Marker) -> bool:
        """Whether a marker was made in this very directory: then, and only then, its lock tells the truth."""
        made_here = bool(self.id) and marker.host == self.host and marker.job_run_id.startswith(f"{self.id}-")
        return made_here and _RUN_ID.fullmatch(marker.job_run_id) is not None

    def life(self, marker: Marker) -> Life:
        """Whether the job run that made a marker still lives."""
        if not self.knows(marker):
            return Life.UNKNOWN
        try:
            with _opened(self._runs / marker.job_run_id) as fd:
                return Life.DEAD if _lock(fd, fcntl.LOCK_SH) else Life.ALIVE
        except FileNotFoundError:
            return Life.DEAD
        except OSError as error:
            log.warning("cannot tell whether job run %s is alive: %s", marker.job_run_id, error.strerror)
            return Life.UNKNOWN

    def left_behind(self) -> dict[Marker, tuple[FrozenVm, ...]]:
        """The VMs that dead job runs had frozen and not released, by the marker of the run."""
        found: dict[Marker, tuple[FrozenVm, ...]] = {}
        for path in self._files():
            marker = Marker(path.name, self.host)
            if self.life(marker) is Life.DEAD:
                with contextlib.suppress(OSError):
                    found[marker] = _notes(path.read_text("utf-8", "replace").splitlines())
        return found

    def forget(self, marker: Marker) -> None:
        """Sweep a dead job run's file away: nothing of it is left anywhere."""
        path = self._runs / marker.job_run_id
        if not self.knows(marker):
            return
        with contextlib.suppress(OSError), _opened(path) as fd:
            if _lock(fd, fcntl.LOCK_EX):
                path.unlink()

    def _files(self) -> list[Path]:
        with contextlib.suppress(OSError):
            return sorted(path for path in self._runs.iterdir() if _RUN_ID.fullmatch(path.name))
        return []


def default_directory() -> Path:
    """Where state is kept when the configuration does not say: the service's place, or the user's own."""
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]  # by systemd
    if given:
        return Path(given)
    if os.access(SYSTEM_DIRECTORY, os.W_OK | os.X_OK):
        return SYSTEM_DIRECTORY
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path("~/.local/state").expanduser()) / "vcbproxy"


def _make_id(directory: Path) -> None:
    """Give the directory a random id, unless somebody else does so at this moment."""
    fresh = directory / f".id-{secrets.token_hex(4)}"
    fresh.write_text(secrets.token_hex(4) + "\n", "ascii")
    try:
        fresh.chmod(_READABLE_BY_ALL)
        with contextlib.suppress(FileExistsError):
            (directory / "id").hardlink_to(fresh)  # unlike a rename, the first one wins
    finally:
        fresh.unlink()


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)


def _lock(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _notes(lines: Iterable[str]) -> tuple[FrozenVm, ...]:
    """What was frozen and not released. The last line of a machine that lost its power may be torn: passed over."""
    frozen: dict[str, FrozenVm] = {}
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            note = json.loads(line)
            if "frozen" in note:
                vm = FrozenVm(**{key: str(note["frozen"][key]) for key in ("manager", "moref", "name")})
                frozen[vm.moref] = vm
            else:
                frozen.pop(note["released"], None)
    return tuple(frozen.values())
