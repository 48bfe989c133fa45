"""A LUN that fails, hangs and comes back at a word: real errors of the block layer, not a device of ours that raises.

image ◀── nbdkit (a shell script) ◀──Unix socket── nbdfuse ◀──FUSE── loop device ◀── the program
             a file "fail": EIO; a file "hang": no answer until it is gone; for one range of the LUN, or for all
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.beside import until
from tests.san import loops

# nbdkit-sh-plugin(3): the method is the first argument; a read has a handle, a length and an offset.
_SERVER = """
case "$1" in
get_size) stat -Lc %s "$image" ;;
thread_model) echo parallel ;;
pread)
    if [ "$4" -lt "$bad_end" ] && [ $(($4 + $3)) -gt "$bad_start" ]; then
        : > "$trouble/reached"
        while [ -e "$trouble/hang" ]; do sleep 0.02; done
        [ -e "$trouble/fail" ] && { echo EIO >&2; exit 1; }
    fi
    exec dd if="$image" iflag=skip_bytes,count_bytes,fullblock skip="$4" count="$3" bs=1M status=none ;;
*) exit 2 ;;
esac
"""


@dataclass(frozen=True, slots=True)
class FaultyLun:
    """The loop device, the file of the mount below it, and the ways to trouble them."""

    device: Path
    mounted: Path
    _trouble: Path
    _mount_server: subprocess.Popen[bytes]

    def fail(self) -> None:
        """Let reads end in EIO from now on."""
        (self._trouble / "fail").touch()

    def heal(self) -> None:
        """Let reads succeed again."""
        (self._trouble / "fail").unlink()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Let reads hang while inside, and be answered then; ``reached`` is for what comes from now on."""
        hang = self._trouble / "hang"
        (self._trouble / "reached").unlink(missing_ok=True)
        hang.touch()
        try:
            yield
        finally:
            hang.unlink()

    @contextmanager
    def mount_hanging(self) -> Iterator[None]:
        """Let nothing that is asked of ``mounted`` be answered while inside: an NFS server that is gone.

        One thread of a process takes the signal and then stops the others, which answer what comes until it gets a
        processor: 36 ms on a busy machine, where every second question was answered. The last to stop tells us.
        """
        self._mount_server.send_signal(signal.SIGSTOP)
        try:
            stopped = os.waitid(os.P_PID, self._mount_server.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            assert stopped is not None
            assert stopped.si_code == os.CLD_STOPPED, "the mount's server ended"
            yield
        finally:
            self._mount_server.send_signal(signal.SIGCONT)

    def mount_server_states(self) -> set[str]:
        """What the threads of the server of ``mounted`` do now, as in proc(5): ``{"T"}`` when all have stopped."""
        threads = Path(f"/proc/{self._mount_server.pid}/task").iterdir()
        return {(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in threads}

    @property
    def reached(self) -> bool:
        """Whether the bad range was ever read, or tried."""
        return (self._trouble / "reached").exists()


@contextmanager
def lun(image: Path, sector_bytes: int = 512, *, bad: tuple[int, int] | None = None) -> Iterator[FaultyLun]:
    """Serve ``image`` as a block device that can be troubled, at the range (start, end) ``bad`` or everywhere."""
    loops.need_root("nbdkit", "nbdfuse", "losetup", "umount")
    if not Path("/dev/fuse").exists():
        pytest.skip("needs /dev/fuse")
    trouble = image.parent / f"{image.name}.trouble"
    trouble.mkdir()
    mount = trouble / "lun"
    mount.touch()
    size_bytes = image.stat().st_size
    start, end = bad or (0, size_bytes)
    script = trouble / "server"
    script.write_text(f"#!/bin/sh\nimage={image} trouble={trouble} bad_start={start} bad_end={end}\n{_SERVER}")
    script.chmod(0o755)
    with ExitStack() as stack:
        socket = Path(stack.enter_context(TemporaryDirectory())) / "sock"  # its path must be short
        serve = ["nbdkit", "--foreground", "--readonly", "--unix", str(socket), "sh", str(script)]
        stack.enter_context(_running(serve))
        until(socket.exists, "nbdkit to listen", timeout_s=10)
        fuse = stack.enter_context(_running(["nbdfuse", "--readonly", str(mount), "--unix", str(socket)]))
        stack.callback(_unmount, mount)
        until(lambda: mount.stat().st_size == size_bytes, "nbdfuse to mount", timeout_s=10)
        device = stack.enter_context(loops.attached(mount, sector_bytes))
        yield FaultyLun(device, mount, trouble, fuse)


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A server, ended whatever state it is in: a test must never wait for one that hangs."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            yield server
        finally:
            server.terminate()
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                server.kill()


def _unmount(mount: Path) -> None:
    """A loop device that was detached lets go of its file only when its last read has come back."""

    def unmounted() -> bool:
        return subprocess.run(["umount", str(mount)], capture_output=True, check=False).returncode == 0

    try:
        until(unmounted, f"{mount} to be unmounted", timeout_s=10)
    except AssertionError:
        subprocess.run(["umount", "--lazy", str(mount)], check=False)
        raise
