"""A guest: a QEMU machine with Debian's stock kernel, whose root is this machine's own files, laid over with a layer.

    run(suite) ──▶ qemu ──▶ init.sh ──▶ python -m tests.guest.inside SUITE ──▶ out/results.jsonl   a line for each step
                     │                                                     └─▶ out/*               what else it kept
                     └──▶ out/console.log                                      the kernel's and the programs' talk

Nothing of the host can be written from inside but the folder ``out``. The processor is emulated (TCG): it runs wherever
QEMU does, ten to thirty times slower than the host, so a suite does little and does it once.
"""

from __future__ import annotations

import compileall
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TREE = Path(__file__).resolve().parents[2]
CACHE = TREE / ".cache" / "guest"
MEMORY_MIB = 2048
TIMEOUT_S = 420  # computing takes a third of that; the rest is for a host with other things to do
_KILL_AFTER_S = 5
_CONSOLE_TAIL_LINES = 60

_START = """\
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
export PYTHONPATH={tree} PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ip link set lo up
[ -e {tree} ] || {{ # the checkout lies below /tmp or /run, of which the guest has its own
    mkdir -p {tree} /run/tree/read /run/tree/written /run/tree/work
    mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,ro,cache=loose tree /run/tree/read
    mount -t overlay -o lowerdir=/run/tree/read,upperdir=/run/tree/written,workdir=/run/tree/work overlay {tree}
}}
cd {tree}
main() {{
    {python} -m tests.guest.inside {suite} /out
    echo "guest: the suite ended with $?"
    sync
    echo o >/proc/sysrq-trigger
    while :; do :; done # the power goes in a moment, and with it this file
}}
main
"""


@dataclass(frozen=True, slots=True)
class Step:
    """What became of one step of a suite: ``facts`` is what it found, ``problem`` is a traceback, or empty."""

    name: str
    seconds: float
    facts: Mapping[str, Any]
    problem: str


@dataclass(frozen=True, slots=True)
class Run:
    """A guest that has ended. ``cpu_s`` is what it cost the host: on a busy one it takes longer than that."""

    out: Path
    seconds: float
    cpu_s: float
    steps: Mapping[str, Step]

    @property
    def console(self) -> str:
        return (self.out / "console.log").read_text("utf-8", "replace").replace("\r", "")

    def step(self, name: str) -> Step:
        """The step of that name, which went well.

        Raises:
            AssertionError: it failed, or the guest never got there; with what the guest said last.
        """
        tail = "\n".join(self.console.splitlines()[-_CONSOLE_TAIL_LINES:])
        reached = ", ".join(self.steps) or "none"
        assert name in self.steps, f"the guest never got to {name}; steps done: {reached}\n--- its console ---\n{tail}"
        step = self.steps[name]
        assert not step.problem, f"in the guest: {step.problem}\n--- its console ---\n{tail}"
        return step


def run(suite: str, out: Path, timeout_s: float, settings: Mapping[str, Any] | None = None) -> Run:
    """Boot a guest, run ``tests/guest/inside/SUITE.py`` in it, wait for its end; it is killed when its time is up.

    With settings, which it finds as ``out/settings.json``, it has a network card, too: this machine's loopback
    interface is 10.0.2.2 to it.
    """
    for package in ("tests", "vcbproxy", "jobs", "tape"):
        compileall.compile_dir(str(TREE / package), quiet=2)
    if settings is not None:
        (out / "settings.json").write_text(json.dumps(settings))
    start = _START.format(tree=shlex.quote(str(TREE)), python=shlex.quote(sys.executable), suite=shlex.quote(suite))
    (out / "start").write_text(start)
    began, used_s = time.monotonic(), _children_s()
    command = _command(out, timeout_s, network=settings is not None)
    with (out / "console.log").open("wb") as console:
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, check=False)
    return Run(out, time.monotonic() - began, _children_s() - used_s, _steps(out / "results.jsonl"))


def _children_s() -> float:
    used = os.times()
    return used.children_user + used.children_system


def _command(out: Path, timeout_s: float, *, network: bool) -> list[str]:
    """QEMU, which ends when its time is up, when we are killed, and when what watches the time is killed."""
    # no_timer_check: on a busy host the timer may seem not to work, and the kernel gives up.
    kernel = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr random.trust_cpu=on no_timer_check nowatchdog"
    shares = {
        "host": "path=/,readonly=on,multidevs=remap",
        "layer": f"path={CACHE / 'layer'},readonly=on",
        "out": f"path={out}",
        "tree": f"path={TREE},readonly=on",
    }
    command = ["setpriv", "--pdeathsig", "TERM", "timeout", f"--kill-after={_KILL_AFTER_S}", str(timeout_s)]
    command += ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults"]
    # One processor: of two, one slept for ever on a host with a load of 20 (QEMU 7.2), once in five runs.
    command += ["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", str(MEMORY_MIB)]
    command += ["-no-reboot", "-display", "none", "-serial", "stdio", "-device", "virtio-rng-pci"]
    command += ["-kernel", str(CACHE / "vmlinuz"), "-initrd", str(CACHE / "initrd"), "-append", kernel]
    for tag, options in shares.items():
        command += ["-fsdev", f"local,id={tag},security_model=none,{options}"]
        command += ["-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    if network:
        command += ["-netdev", "user,id=lan", "-device", "virtio-net-pci,netdev=lan,romfile="]
    return command


def _steps(results: Path) -> dict[str, Step]:
    if not results.exists():
        return {}
    rows = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
    return {row["name"]: Step(**row) for row in rows}
