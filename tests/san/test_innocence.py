"""Proof of innocence: a whole backup, watched by strace, only asks and reads; and the judges know guilt.

The guest (docs/guest.md) has the kernel's and the array's own word for it; here is what any machine with root can show.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.program import served
from tests.san import innocence, loops
from vcbproxy.lab import spec as specification

INNOCENT_CALLS = """\
7 openat(AT_FDCWD</root>, "/dev/mapper/3600144f0", O_RDONLY|O_DIRECT|O_CLOEXEC) = 8</dev/dm-0>
7 ioctl(8</dev/dm-0>, BLKSSZGET, [512]) = 0
7 ioctl(8</dev/dm-0>, BLKGETSIZE64, [556793856]) = 0
8 preadv(8</dev/dm-0>, [{iov_base="", iov_len=4096}], 1, 0) = 4096
8 preadv(8</dev/dm-0>, <unfinished ...>
7 write(2</dev/pts/0>, "web01", 5) = 5
7 openat(AT_FDCWD</root>, "/dev/null", O_WRONLY|O_CLOEXEC) = 9</dev/null>
7 openat(AT_FDCWD</root>, "/tmp/lab/repo/data/ab", O_WRONLY|O_CREAT|O_EXCL, 0600) = 9</tmp/lab/repo/data/ab>
"""

GUILTY_CALLS = [
    '7 openat(AT_FDCWD</root>, "/dev/dm-0", O_RDWR|O_CLOEXEC) = 8</dev/dm-0>',
    '7 openat(AT_FDCWD</root>, "/dev/dm-0", O_WRONLY) = -1 EACCES (Permission denied)',
    '7 openat(AT_FDCWD</root>, "/dev/dm-0", O_RDONLY|O_EXCL) = 8</dev/dm-0>',
    "7 ioctl(8</dev/sda>, SG_IO, {interface_id='S', dxfer_direction=SG_DXFER_NONE, cmd_len=6}) = 0",
    "7 ioctl(8</dev/dm-0>, BLKROSET, [1]) = 0",
    "7 ioctl(8</dev/dm-0>, BLKDISCARD, [0, 4096]) = 0",
    "7 ioctl(8</dev/dm-0>, _IOC(_IOC_WRITE, 0x70, 0xc8, 0x20), 0x7ffd) = 0",
    '7 pwrite64(8</dev/dm-0>, "", 4096, 0) = 4096',
    "7 fallocate(8</dev/dm-0>, FALLOC_FL_PUNCH_HOLE, 0, 4096) = 0",
    "7 fsync(8</dev/dm-0>) = 0",
    "7 io_uring_setup(8, {flags=0}) = 9<anon_inode:[io_uring]>",
    '7 openat(AT_FDCWD</root>, "/dev/sg0", O_RDWR) = 8</dev/sg0>',
]

# As Linux 6.1 prints them.
TRACE = """\
# tracer: nop
 python3-812 [001] ..... 71.207: block_bio_queue: 254,0 R 2048 + 256 [python3]
 kworker/1:1H-90 [001] ..... 71.208: block_rq_issue: 8,16 R 131072 () 2048 + 256 [kworker/1:1H]
 multipathd-300 [000] ..... 71.209: block_rq_issue: 8,16 N 0 () 0 + 0 [multipathd]
 kworker/1:1H-90 [001] ..... 71.210: scsi_dispatch_cmd_start: host_no=1 channel=0 id=0 lun=1 data_sgl=1 prot_sgl=0 \
prot_op=SCSI_PROT_NORMAL driver_tag=3 scheduler_tag=4 cmnd=(READ_10 lba=2048 txlen=256 protect=0 raw=28 00 00 00 08 00)
 multipathd-300 [000] ..... 71.211: scsi_dispatch_cmd_start: host_no=1 channel=0 id=0 lun=1 data_sgl=0 prot_sgl=0 \
prot_op=SCSI_PROT_NORMAL driver_tag=3 scheduler_tag=4 cmnd=(TEST_UNIT_READY raw=00 00 00 00 00 00)
"""


def test_calls_that_ask_and_read_are_innocent() -> None:
    assert innocence.of_calls(INNOCENT_CALLS) == innocence.Verdict(5, ())


@pytest.mark.parametrize("call", GUILTY_CALLS)
def test_calls_that_change_or_might_are_not(call: str) -> None:
    assert innocence.of_calls(INNOCENT_CALLS + call).accusations == (call,)


def test_requests_and_commands_that_read_are_innocent() -> None:
    assert innocence.of_requests(TRACE, {"8,16", "254,0"}) == innocence.Verdict(3, ())
    assert innocence.of_commands(TRACE) == innocence.Verdict(2, ())


@pytest.mark.parametrize("kind", ["W", "WS", "WFS", "D", "DE", "F", "FF", "WZ"])
def test_requests_that_write_discard_or_flush_are_not(kind: str) -> None:
    for event in ("block_bio_queue: 254,0 {} 2048 + 8 [sh]", "block_rq_issue: 254,0 {} 4096 () 2048 + 8 [sh]"):
        guilty = f" sh-1 [000] ..... 72.0: {event.format(kind)}"
        assert innocence.of_requests(TRACE + guilty, {"254,0"}).accusations == (guilty.strip(),)
        assert innocence.of_requests(TRACE + guilty, {"8,16"}).accusations == (), "of another device"


@pytest.mark.parametrize(
    "command",
    [
        "RESERVE raw=16 00 00 00 00 00",
        "RELEASE raw=17 00 00 00 00 00",
        "PERSISTENT_RESERVE_OUT raw=5f 00 00 00 00 00 00 00 18 00",
        "WRITE_10 lba=0 txlen=8 protect=0 raw=2a 00 00 00 00 00 00 00 08 00",
        "UNMAP regions=1 raw=42 00 00 00 00 00 00 00 18 00",
        "WRITE_16 lba=0 txlen=8 protect=0 raw=8a 00",
        "SYNCHRONIZE_CACHE raw=35 00",
        "START_STOP raw=1b 00 00 00 00 00",
        "UNKNOWN raw=c5 00",
    ],
)
def test_commands_that_reserve_or_write_are_not(command: str) -> None:
    guilty = (
        f" x-1 [000] ..... 72.0: scsi_dispatch_cmd_start: host_no=1 channel=0 id=0 lun=1 data_sgl=0 cmnd=({command})"
    )
    assert innocence.of_commands(TRACE + guilty).accusations == (guilty.strip(),)


def test_a_trace_with_gaps_is_no_proof() -> None:
    with pytest.raises(AssertionError, match="events were lost"):
        innocence.of_commands(TRACE + "CPU:1 [LOST 42 EVENTS]\n")


@pytest.mark.root
def test_a_whole_backup_only_reads_the_luns(tmp_path: Path) -> None:
    """The LUN is attached writable: what keeps the program from writing is the program."""
    loops.need_root("strace", "losetup")
    log = tmp_path / "strace.log"
    with ExitStack() as stack:
        lab = stack.enter_context(served(tmp_path / "lab", specification.tiny(6, snapshots=1)))
        [image] = lab.datacenter.luns()
        loop = stack.enter_context(loops.attached(image, read_only=False))
        config = lab.directory / "vcbproxy.toml"
        config.write_text(config.read_text().replace(f"luns/{image.name}", str(loop)))
        lab.new_repository()
        command = innocence.watched([sys.executable, "-m", "vcbproxy", "backup", "--all", "--json"], log)
        done = subprocess.run(command, env=lab.vcbproxy.environment, capture_output=True, text=True, check=False)
        if "ptrace" in done.stderr.lower() or "PTRACE" in done.stderr:
            pytest.skip("needs permission to trace processes")
        assert done.returncode == 0, done.stderr
    seen = log.read_text("utf-8", "replace")
    verdict = innocence.of_calls(seen)
    assert f"<{loop}>" in seen
    assert verdict.seen > 10
    assert verdict.accusations == ()


@pytest.mark.root
def test_a_program_that_writes_is_found_out(tmp_path: Path) -> None:
    loops.need_root("strace", "losetup")
    image, log = tmp_path / "lun.img", tmp_path / "strace.log"
    image.write_bytes(bytes(1 << 20))
    with loops.attached(image, read_only=False) as loop:
        command = innocence.watched(["dd", "if=/dev/zero", f"of={loop}", "bs=4096", "count=1", "conv=notrunc"], log)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "ptrace" in done.stderr.lower():
            pytest.skip("needs permission to trace processes")
    accusations = innocence.of_calls(log.read_text("utf-8", "replace")).accusations
    assert any("O_WRONLY" in call for call in accusations)
    assert any("write(" in call for call in accusations)
