"""Whether a job run is alive is told by a lock that no crash can leave behind, and that no look can disturb."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jobs.ownership import FrozenVm, Life, Registry
from tests.program import ROOT
from vcbproxy.errors import ConfigError
from vcbproxy.manager.marker import Marker

VM = FrozenVm("vc-1", "vm-20", "web01")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return used(Registry(tmp_path / "state", "proxy01"))


def used(registry: Registry) -> Registry:
    """One that has seen a job run."""
    with registry.begin():
        pass
    return registry


def again(registry: Registry) -> Registry:
    """Another process's look at the same directory."""
    return Registry(registry.directory, registry.host)


def test_a_job_run_lives_as_long_as_its_block(registry: Registry) -> None:
    with registry.begin() as run:
        assert run.marker.host == "proxy01"
        assert again(registry).life(run.marker) is Life.ALIVE
    assert again(registry).life(run.marker) is Life.DEAD
    assert list((registry.directory / "runs").iterdir()) == []


def test_a_killed_process_is_dead_and_what_it_froze_is_known(registry: Registry) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from jobs.ownership import FrozenVm, Registry\n"
        "with Registry(Path(sys.argv[1]), 'proxy01').begin() as run:\n"
        "    run.freezing(FrozenVm('vc-1', 'vm-1', 'a'))\n"
        "    run.freezing(FrozenVm('vc-1', 'vm-20', 'web01'))\n"
        "    run.released('vm-1')\n"
        "    print(run.marker.job_run_id, flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", program, str(registry.directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        marker = Marker(process.stdout.readline().strip(), "proxy01")
        assert registry.life(marker) is Life.ALIVE
        assert registry.left_behind() == {}
        process.send_signal(signal.SIGKILL)
    assert registry.life(marker) is Life.DEAD
    assert registry.left_behind() == {marker: (VM,)}
    registry.forget(marker)
    assert registry.left_behind() == {}


def test_a_program_that_it_starts_does_not_keep_it_alive(registry: Registry) -> None:
    with registry.begin() as run:
        child = subprocess.Popen(["sleep", "60"])
    try:
        assert registry.life(run.marker) is Life.DEAD
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize(
    "text",
    ["{id}-0123456", "{id}", "00000000-01234567", "4f1c9a3e", "{id}-0123456789"],
)
def test_job_runs_of_elsewhere_are_not_judged(registry: Registry, text: str) -> None:
    assert registry.life(Marker(text.format(id=registry.id), "proxy01")) is Life.UNKNOWN
    assert registry.life(Marker(f"{registry.id}-01234567", "proxy02")) is Life.UNKNOWN
    assert registry.life(Marker(f"{registry.id}-01234567", "proxy01")) is Life.DEAD


def test_two_directories_of_one_host_do_not_speak_for_each_other(registry: Registry, tmp_path: Path) -> None:
    other = used(Registry(tmp_path / "other", "proxy01"))
    with registry.begin() as run:
        assert other.life(run.marker) is Life.UNKNOWN


def test_a_live_one_is_not_forgotten(registry: Registry) -> None:
    with registry.begin() as run:
        run.freezing(VM)
        again(registry).forget(run.marker)
        assert again(registry).life(run.marker) is Life.ALIVE
    assert registry.left_behind() == {run.marker: (VM,)}


def test_a_note_torn_by_a_power_cut_is_passed_over(registry: Registry) -> None:
    with registry.begin() as run:
        run.freezing(VM)
    path = registry.directory / "runs" / run.marker.job_run_id
    for torn in (b'{"frozen": {"man', b"\xff\x00\n", b"7\n", b'{"frozen": 7}\n', b"{}\n"):
        path.write_bytes(path.read_bytes() + torn)
        assert registry.left_behind() == {run.marker: (VM,)}
        path.write_bytes(path.read_bytes().removesuffix(torn))


def test_a_sweep_never_takes_a_beginning_job_run_for_a_dead_one(registry: Registry) -> None:
    """A file exists for a moment before it is locked: whoever sweeps then must not win."""
    stop = threading.Event()

    def sweep() -> None:
        sweeper = again(registry)
        while not stop.is_set():
            for path in (registry.directory / "runs").iterdir():
                sweeper.forget(Marker(path.name, "proxy01"))

    sweepers = [threading.Thread(target=sweep) for _ in range(2)]
    for thread in sweepers:
        thread.start()
    try:
        for _ in range(300):
            with registry.begin() as run:
                assert again(registry).life(run.marker) is Life.ALIVE
                assert (registry.directory / "runs" / run.marker.job_run_id).exists()
    finally:
        stop.set()
        for thread in sweepers:
            thread.join()


def test_the_directory_keeps_its_id(registry: Registry, tmp_path: Path) -> None:
    assert again(registry).id == registry.id
    assert used(Registry(tmp_path / "other", "proxy01")).id != registry.id
    (registry.directory / "id").write_text("what")
    with pytest.raises(ConfigError, match="8 hex digits"):
        again(registry)


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=r"\[state\] directory"):
            used(Registry(place, "proxy01"))


def test_looking_creates_nothing_and_knows_nobody(tmp_path: Path) -> None:
    looked = Registry(tmp_path / "state", "proxy01")
    assert looked.life(Marker("01234567-01234567", "proxy01")) is Life.UNKNOWN
    assert looked.life(Marker("-01234567", "proxy01")) is Life.UNKNOWN
    assert looked.left_behind() == {}
    assert not looked.directory.exists()


def test_what_root_creates_lets_the_service_in(tmp_path: Path) -> None:
    """An administrator tries a backup by hand before the first night: the service's user must get in afterwards."""
    if os.geteuid() != 0:
        pytest.skip("needs root to give a directory away")
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    os.chown(state, 12345, 12345)
    with Registry(state, "proxy01").begin() as run:
        runs = state / "runs"
        assert (runs.stat().st_uid, runs.stat().st_gid) == (12345, 12345)
        assert stat.S_IMODE((state / "id").stat().st_mode) == 0o644
        assert stat.S_IMODE((runs / run.marker.job_run_id).stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"STATE_DIRECTORY": "/var/lib/elsewhere:/var/lib/second"}, "/var/lib/elsewhere"),
        ({"XDG_STATE_HOME": "/home/me/state"}, "/home/me/state/vcbproxy"),
        ({"HOME": "/home/me"}, "/home/me/.local/state/vcbproxy"),
    ],
)
def test_where_state_is_kept_when_nobody_says(environment: dict[str, str], expected: str) -> None:
    program = "from jobs.ownership import default_directory; print(default_directory())"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in (expected, *(["/var/lib/vcbproxy"] if "STATE_DIRECTORY" not in environment else []))
