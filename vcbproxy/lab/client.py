"""The client's side of a lab's folder: a configuration that names its vCenter, its LUNs and a repository."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from vcbproxy.lab import build
from vcbproxy.lab.spec import LabSpec

CONFIG_NAME = "vcbproxy.toml"
_REPOSITORY_PASSWORD = "lab-repository"  # noqa: S105  # of a repository of made-up disks


def write(directory: Path, spec: LabSpec) -> None:
    """Write the configuration, with a port that is free now, and its password files."""
    for name, password in (("vcenter.password", spec.password), ("repo.password", _REPOSITORY_PASSWORD)):
        path = directory / name
        path.touch(mode=0o600)
        path.write_text(password + "\n", "utf-8")
    set_port(directory, spec, _free_port())


def set_port(directory: Path, spec: LabSpec, port: int) -> None:
    """Write the configuration for a vCenter at a port."""
    images = [
        f"    {{ path = {_quoted(path)}, wwn = {_quoted(wwn)} }},\n"
        for datastore in spec.datastores
        for path, wwn in build.luns(datastore, spec.seed)
    ]
    images += [f"    {{ path = {_quoted(path)}, wwn = {_quoted(wwn)} }},\n" for path, wwn in build.raw_luns(spec)]
    mounts = [
        f"    {{ datastore = {_quoted(datastore.name)}, path = {_quoted(f'nfs/{datastore.name}')} }},\n"
        for datastore in spec.datastores
        if datastore.version == 0
    ]
    text = (
        "# A client of the lab in this folder; `vcbproxy lab serve` must be running.\n"
        "[manager]\n"
        'host = "127.0.0.1"\n'
        f"port = {port}\n"
        f"username = {_quoted(spec.username)}\n"
        'password_file = "vcenter.password"\n'
        'ca_file = "tls/ca.pem"\n'
        "\n"
        "[san]\n"
        "discover = false\n"
        f"images = [\n{''.join(images)}]\n" + (f"mounts = [\n{''.join(mounts)}]\n" if mounts else "") + "\n"
        "[repository]\n"
        'location = "repo"\n'
        'password_file = "repo.password"\n'
        "\n"
        "[state]\n"
        'directory = "proxy"\n'
    )
    path = directory / CONFIG_NAME
    fresh = path.with_suffix(".new")
    fresh.write_text(text, "utf-8")
    fresh.replace(path)


def port(directory: Path) -> int:
    """The port that the configuration names."""
    import tomllib

    return int(tomllib.loads((directory / CONFIG_NAME).read_text("utf-8"))["manager"]["port"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
