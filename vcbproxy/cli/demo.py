"""``vcbproxy lab demo``: the whole main job, shown: lab, backups under guest writes, restore, comparison, restic.

Every step is the very command a user would type, run as a process of its own. What it proves is compared, not claimed:
the SHA-256 of each restored disk with what the simulated hosts recorded at the instant of the snapshot.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from vcbproxy.cli import frame
from vcbproxy.errors import Error, IntegrityError, UsageError

_READY_S = 30.0
_STOP_S = 30.0
_POOL = """\
[tape.library.vtl]
folder = "vtl"

[tape.pool.demo]
barcodes = ["TAP001L8-TAP003L8"]
retention = "30d"
"""
_PROGRAM = (sys.executable, "-m", "vcbproxy")


@click.command(cls=frame.Command, exit_codes=(4,))
@click.option("--keep", type=click.Path(path_type=Path), help="Build it here and leave it for you to look at.")
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed, other disks.")
def demo(keep: Path | None, seed: int) -> None:
    """Back up three VMs on VMFS-3, -5 and -6, twice, and onto tape, while guests write; restore; compare; ask restic.

    The guests' disks are compared with what the simulated hosts recorded at the instant of each snapshot.
    """
    restic = shutil.which("restic")
    if restic is None:
        raise UsageError("the demo lets stock restic check the repository; install it: apt-get install restic")
    with ExitStack() as stack:
        directory = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vcbproxy-demo-")))
        _Demo(directory, restic).run(seed)


class _Demo:
    def __init__(self, directory: Path, restic: str) -> None:
        self._lab = directory / "lab"
        self._back = directory / "restored"
        self._restic_back = directory / "restored-by-restic"
        self._tape_back = directory / "restored-from-tape"
        self._restic = restic
        self._started = time.monotonic()

    def run(self, seed: int) -> None:
        _title("A datacenter in a folder: three VMs on VMFS-3, VMFS-5 (two LUNs) and VMFS-6 (with a user's snapshot)")
        self._show("lab", "create", str(self._lab), "--seed", str(seed))
        with self._served():
            _title("What the proxy sees")
            self._show("lun", "list")
            self._show("vm", "list")
            _title("A repository, and the preflight")
            self._show("repo", "init")
            self._show("check")
            _title("The first backup, off the LUNs, while the guests write; hosts track what changes from now on")
            self._show("backup", "--all", "--enable-cbt")
            _title("The second: only what changed is read, and a sample of the rest, to see that this was all")
            self._show("backup", "--all")
            self._show("points", "list")
            truths = self._truths()
            _title("Onto tape: a library in a folder, three cartridges; each VM off the LUNs, nothing in between")
            self._add_library()
            self._show("backup", "--all", "--to", "tape:demo")
            on_tape = self._truths()
        _title("The restore, compared with the frozen truth")
        points = self._json("points", "list")
        for vm in dict.fromkeys(point["vm"] for point in points):
            self._show("restore", f"{vm}@latest", "--to", str(self._back / vm))
        self._compare(truths, self._back)
        self._show("verify")
        _title("The restore from tape, each cartridge loaded once")
        vms = list(dict.fromkeys(point["vm"] for point in points))
        latest = [f"{vm}@latest" for vm in vms]
        self._show("restore", *latest, "--from", "tape", "--dry-run")
        self._show("restore", *latest, "--from", "tape", "--to", str(self._tape_back))
        self._compare(on_tape, self._tape_back)
        _title("Stock restic on the same repository")
        self._stock("check", "--read-data")
        self._stock("restore", "latest", "--host", points[-1]["vm"], "--target", str(self._restic_back))
        self._compare(truths, self._restic_back, only=points[-1]["vm"])
        _title(f"Done in {time.monotonic() - self._started:.0f} s: every disk came back bit for bit")

    def _add_library(self) -> None:
        self._show("tape", "library", "create", str(self._lab / "vtl"), "--barcodes", "TAP001L8-TAP003L8")
        config = self._lab / "vcbproxy.toml"
        config.write_text(f"{config.read_text()}\n{_POOL}")
        click.echo(f"\n{_POOL}")

    def _truths(self) -> dict[tuple[str, str], str]:
        """The digest of each disk at the newest snapshot, which is ours."""
        rows = self._json("lab", "truth", str(self._lab), "--marker", "vcbproxy:")
        return {(row["vm"], row["disk"]): row["sha256"] for row in rows}

    def _compare(self, truths: Mapping[tuple[str, str], str], root: Path, only: str | None = None) -> None:
        wanted = {key: digest for key, digest in truths.items() if only in (None, key[0])}
        if not wanted:
            raise Error("the lab recorded nothing to compare with")
        for (vm, disk), digest in sorted(wanted.items()):
            found = sorted(root.glob(f"**/{vm}/**/{disk}.raw"))
            if len(found) != 1:
                raise IntegrityError(f"{vm} {disk}: {len(found)} files were restored below {root}")
            same = _sha256(found[0]) == digest
            click.echo(
                f"  {vm:10} {disk:8} sha256 {digest[:16]}…  {'equal to the frozen truth' if same else 'DIFFERS'}"
            )
            if not same:
                raise IntegrityError(f"{found[0]} is not what the snapshot froze")

    @property
    def _environment(self) -> dict[str, str]:
        ours = {"VCBPROXY_REPO", "VCBPROXY_PASSWORD_FILE", "VCBPROXY_PASSWORD_COMMAND"}
        kept = {name: value for name, value in os.environ.items() if name not in ours}
        return {**kept, frame.CONFIG_VARIABLE: str(self._lab / "vcbproxy.toml"), "RESTIC_PROGRESS_FPS": "0.1"}

    def _show(self, *arguments: str) -> None:
        _prompt(["vcbproxy", *arguments])
        self._run([*_PROGRAM, *arguments])

    def _stock(self, *arguments: str) -> None:
        command = [self._restic, "--no-cache", "-r", str(self._lab / "repo")]
        command += ["--password-file", str(self._lab / "repo.password"), *arguments]
        _prompt(["restic", *command[1:]])
        self._run(command)

    def _run(self, command: Sequence[str]) -> None:
        sys.stdout.flush()
        done = subprocess.run(command, env=self._environment, check=False)
        if done.returncode != 0:
            raise Error(f"`{shlex.join(command)}` ended with exit code {done.returncode}")

    def _json(self, *arguments: str) -> list[dict[str, Any]]:
        command = [*_PROGRAM, *arguments, "--json"]
        done = subprocess.run(command, env=self._environment, check=True, stdout=subprocess.PIPE)
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows

    @contextmanager
    def _served(self) -> Iterator[None]:
        """The lab's vCenter, with guests that write, for the length of the block."""
        arguments = ["lab", "serve", str(self._lab), "--guest-writes"]
        _prompt(["vcbproxy", *arguments, "&"])
        with subprocess.Popen([*_PROGRAM, *arguments], stdout=subprocess.DEVNULL) as server:
            try:
                self._await_ready(server)
                yield
            finally:
                server.terminate()
                server.wait(_STOP_S)

    def _await_ready(self, server: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _READY_S
        while not (self._lab / "serve.json").exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise Error("the lab's vCenter did not start")
            time.sleep(0.05)


def _title(text: str) -> None:
    click.echo()
    click.secho(f"── {text}", bold=True)


def _prompt(words: Sequence[str]) -> None:
    click.echo()
    click.secho(f"$ {' '.join(words)}", fg="cyan")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
