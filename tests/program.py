"""The program as a user runs it, against a lab that lives in the test.

Commands run inside the test's process, through the very `main` that the installed program calls: importing everything
anew takes longer than most of them. What must be interrupted, or measured, is started as a process of its own.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.repository.repositories import QUICK
from vcbproxy.cli.main import main
from vcbproxy.lab import client
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import LabSpec
from vcbproxy.lab.vcenter import LabServer
from vcbproxy.repository import creation
from vcbproxy.repository.backend.directory import DirectoryBackend

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Program:
    """`vcbproxy` with one configuration; every run says which exit code it expects."""

    def __init__(self, config: Path | None = None, **environment: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("VCBPROXY_")}
        self.environment = {**clean, "PYTHONPATH": str(ROOT), **environment}
        if config is not None:
            self.environment["VCBPROXY_CONFIG"] = str(config)

    def __call__(self, *arguments: object, code: int | tuple[int, ...] = 0) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with _environment(self.environment), redirect_stdout(out), redirect_stderr(err):
            try:
                main([str(argument) for argument in arguments])
            except SystemExit as end:
                found = end.code if isinstance(end.code, int) else 0
        result = Done(found, out.getvalue(), err.getvalue())
        assert result.code in (code if isinstance(code, tuple) else (code,)), (
            f"exit code {result.code}, expected {code}\n{result.out}\n{result.err}"
        )
        return result

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "vcbproxy", *map(str, arguments)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def stopped_by(process: subprocess.Popen[str], number: signal.Signals) -> Done:
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    return Done(process.returncode, out, err)


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab that is being served, and the program configured for it."""

    directory: Path
    datacenter: Datacenter
    server: LabServer
    vcbproxy: Program

    @property
    def repo(self) -> Path:
        return self.directory / "repo"

    @property
    def password_file(self) -> Path:
        return self.directory / "repo.password"

    def new_repository(self) -> None:
        """What ``repo init`` makes, but for the key's price: a fifth of a second for every command thereafter."""
        creation.create(DirectoryBackend(self.repo), self.password_file.read_text().strip(), kdf=QUICK)

    def truth(self, vm: str) -> dict[str, str]:
        """SHA-256 of each disk at the newest snapshot that was ours."""
        ours = [record for record in self.datacenter.truths(vm) if record.description.startswith("vcbproxy:")]
        return {node: held.sha256 for node, held in ours[-1].disks.items()}

    def snapshots(self, vm: str) -> list[str]:
        return [snapshot.name for snapshot in self.datacenter.machine(vm).state.snapshots]


@contextmanager
def served(directory: Path, spec: LabSpec) -> Iterator[Lab]:
    with Datacenter.create(directory, spec) as datacenter, LabServer(datacenter) as server:
        client.set_port(directory, spec, server.port)
        yield Lab(directory, datacenter, server, Program(directory / "vcbproxy.toml"))
