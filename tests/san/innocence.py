"""Witnesses to what a program did to block devices, and what each of them holds against it.

    the program ──▶ system calls ──▶ block layer ──▶ SCSI layer ──▶ the LUN
                     strace           tracefs: block   tracefs: scsi
                     of_calls         of_requests      of_commands

Whatever is not known to be harmless is held against it: what no list below names is an accusation too. A witness that
saw nothing proves nothing, so a verdict says how much was seen.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Opens, ioctls, and every way to write; and the reads, so that there is something to be seen.
_WATCHED_CALLS = (
    "open,openat,openat2,creat,ioctl,write,writev,pwrite64,pwritev,pwritev2,fallocate,ftruncate,truncate,"
    "copy_file_range,sendfile,splice,vmsplice,tee,io_uring_setup,io_submit,fsync,fdatasync,sync_file_range,mknod,mknodat,"
    "mount,preadv,preadv2,pread64"
)

_NO_LUNS = re.compile(r"/dev/(?:null|zero|full|u?random|tty\w*|ptmx|pts/.*|shm/.*|fd|stdin|stdout|stderr|console)?")
_ASKING_IOCTLS = ("BLKSSZGET", "BLKGETSIZE64")
_READING_CALLS = ("preadv", "preadv2", "pread64", "lseek", "fadvise64", "close", "readlink")
_STATUS_CALLS = ("fstat", "newfstatat", "stat", "lstat", "statx")
_WRITING_FLAGS = re.compile(r"O_(?:RDWR|WRONLY|EXCL|CREAT|TRUNC|APPEND)")
_CALL = re.compile(r"(?:\[pid +)?\d*\]? *(?P<call>\w+)\((?P<rest>.*)")
_NAMED = re.compile(r'[<"](?P<path>/dev/[^"<>]*)')

# SPC-4 and SBC-3: commands that only ask or read. PERSISTENT RESERVE IN (5e) only asks too, but we have no business
# with reservations at all.
_READING_OPCODES = {
    0x00: "TEST UNIT READY",
    0x03: "REQUEST SENSE",
    0x08: "READ(6)",
    0x12: "INQUIRY",
    0x1A: "MODE SENSE(6)",
    0x25: "READ CAPACITY(10)",
    0x28: "READ(10)",
    0x4D: "LOG SENSE",
    0x5A: "MODE SENSE(10)",
    0x88: "READ(16)",
    0x9E: "SERVICE ACTION IN(16): READ CAPACITY(16)",
    0xA0: "REPORT LUNS",
    0xA3: "MAINTENANCE IN",
    0xA8: "READ(12)",
}
_COMMAND = re.compile(r"scsi_dispatch_cmd_start: host_no=\d+ .*cmnd=\((?P<name>\w+) .*raw=(?P<opcode>[0-9a-f]{2})")
_REQUEST = re.compile(r"block_(?:rq_issue|bio_queue): (?P<device>\d+,\d+) (?P<kind>\w+) .*\[(?P<program>.*)\]")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How much one witness saw, and what it holds against the program."""

    seen: int
    accusations: tuple[str, ...]


def watched(command: Sequence[object], log: Path) -> list[str]:
    """The command, run under strace, which writes to ``log`` for :func:`of_calls`."""
    strace = ["strace", "--follow-forks", "--decode-fds=path", "--seccomp-bpf", f"--trace={_WATCHED_CALLS}"]
    return [*strace, "-o", str(log), *map(str, command)]


def of_calls(strace: str, also: Collection[Path] = ()) -> Verdict:
    """Judge what ``watched`` wrote down: calls on anything in /dev that may be a LUN, and on the files of ``also``."""
    calls = list(_calls_on_devices(strace.splitlines(), {str(path) for path in also}))
    accused = [call for call in calls if not _is_reading(call)]
    return Verdict(len(calls), tuple(accused))


def _calls_on_devices(lines: Iterable[str], also: Collection[str]) -> Iterator[str]:
    for line in lines:
        named = {match["path"] for match in _NAMED.finditer(line) if not _NO_LUNS.fullmatch(match["path"])}
        if named or any(path in line for path in also) or "io_uring_setup(" in line:
            yield line


def _is_reading(line: str) -> bool:
    match = _CALL.match(line)
    if match is None:
        return line.split(maxsplit=1)[-1].startswith(("<... ", "---", "+++"))
    call, rest = match["call"], match["rest"]
    if call in ("open", "openat"):
        return "O_RDONLY" in rest and not _WRITING_FLAGS.search(rest)
    if call == "ioctl":
        return any(f", {name}" in rest for name in _ASKING_IOCTLS)
    return call in _READING_CALLS + _STATUS_CALLS


def of_requests(trace: str, devices: Collection[str]) -> Verdict:
    """Judge the kernel's events block_rq_issue and block_bio_queue, for devices such as ``8,16``.

    A request that passes a SCSI command through is of kind N: its opcode is for :func:`of_commands` to judge.
    """
    _complete(trace)
    seen = [match for line in trace.splitlines() if (match := _REQUEST.search(line)) and match["device"] in devices]
    accused = [match.string.strip() for match in seen if not re.fullmatch("R[ASMF]*|N", match["kind"])]
    return Verdict(len(seen), tuple(accused))


def of_commands(trace: str) -> Verdict:
    """Judge the kernel's events scsi_dispatch_cmd_start: every command to any SCSI device, whoever sent it."""
    _complete(trace)
    seen = [match for line in trace.splitlines() if (match := _COMMAND.search(line))]
    accused = [match.string.strip() for match in seen if int(match["opcode"], 16) not in _READING_OPCODES]
    return Verdict(len(seen), tuple(accused))


def _complete(trace: str) -> None:
    """Refuse a trace with gaps: the guilty line might be in one."""
    assert "LOST" not in trace, "the kernel's trace buffer was too small: events were lost"
