"""The configuration: one TOML file, read once, refused as a whole when any of it is wrong.

    [manager]                                   the vCenter Server or ESXi host
    host = "vcenter.example.com"
    username = "backup@vsphere.local"
    password_file = "vcenter.password"          or password_command = ["pass", "vcenter"], or password_credential
    ca_file = "vcenter-ca.pem"                  or thumbprint = "AA:BB:…" (SHA-256); without either, the system's CAs

    [san]
    images = [{ path = "lun0.img", wwn = "naa.600…" }]      plain files or loop devices taken as LUNs
    mounts = [{ datastore = "nfs1", path = "/mnt/nfs1" }]   NFS datastores, mounted here read-only
    read_timeout_s = 300                                    how long a LUN may take to answer before it is given up

    [repository]
    location = "/srv/backup"                    a directory, or s3:https://host/bucket/prefix
    password_file = "repo.password"

    [repository.s3]                             how a bucket is used: region, ca_file, object_lock, ...

    [repository.traffic]
    retry_s = 300                               how long a storage that is away is tried again
    limits = [{ from = "08:00", to = "18:00", upload_mib_s = 20 }]      how fast, and when

    [repository.cache]                          local copies of what is read often
    directory = "/var/cache/vcbproxy"

    [backup]
    workers = 2
    quiesce = "try"                             require | try | off
    compression = "auto"                        off | fastest | auto | max
    busy_timeout_s = 900                        how long to wait for other tasks on a VM
    mode = "auto"                               auto | full | incremental
    enable_cbt = true                           switch changed block tracking on where it is off

    [retention]                                 what `vcbproxy forget` keeps of each VM
    keep_daily = 14                             and keep_last, keep_hourly, keep_weekly, keep_monthly, keep_yearly
    keep_within = "7d"                          and keep_within_hourly, ..., keep_within_yearly
    time_zone = "Europe/Berlin"                 whose midnights part the days

    [state]
    directory = "/var/lib/vcbproxy"             which job runs are alive

    [catalog]
    url = "postgresql://vcbproxy@db/vcbproxy"   which cartridges there are; without: a file in the state directory

    [tape.library.main]
    changer = "00L4U78W6497_LL0"                by serial number or device file; or folder, or portal = "iscsi://…"
    drives = ["1013000508"]                     those that may be used; else all of the library

    [tape.pool.offsite]
    barcodes = ["TAP001L8-TAP040L8"]
    allocation = "weekly"                       continue | always | weekly: when a new media set is begun
    weekday = "fri"
    retention = "90d"                           how long after the last writing nothing is overwritten
    encryption = "age"                          none | age | hardware
    recipients = ["age1…"]
    verify = "read-back"                        none | read-back

Relative paths are taken from the directory of the file itself. Secrets are never inline: a file, a command or a systemd
credential names them.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vcbproxy.config.backup import Backup, Compression, Mode, OnCbtLost, Quiesce, Retention
from vcbproxy.config.base import FilePath, Secret, Section
from vcbproxy.config.origin import Image, Manager, Mount, San
from vcbproxy.config.repository import S3, Addressing, Cache, Day, Limit, ObjectLock, Prune, Repository, Traffic
from vcbproxy.config.tape import Allocation, Catalog, Encryption, Library, Pool, Robot, Tape, WriteVerify
from vcbproxy.errors import ConfigError

__all__ = [
    "DEFAULT_PATH",
    "S3",
    "Addressing",
    "Allocation",
    "Backup",
    "Cache",
    "Catalog",
    "Compression",
    "Config",
    "Day",
    "Encryption",
    "Image",
    "Library",
    "Limit",
    "Manager",
    "Mode",
    "Mount",
    "ObjectLock",
    "OnCbtLost",
    "Pool",
    "Prune",
    "Quiesce",
    "Repository",
    "Retention",
    "Robot",
    "San",
    "Secret",
    "State",
    "Tape",
    "Traffic",
    "WriteVerify",
    "load",
]

DEFAULT_PATH = Path("/etc/vcbproxy/vcbproxy.toml")


class State(Section):
    """Where this proxy notes which of its job runs are alive. All that back up from here must use one directory."""

    directory: FilePath | None = None


class Config(Section):
    """The whole file."""

    manager: Manager | None = None
    san: San = San()
    repository: Repository | None = None
    backup: Backup = Backup()
    retention: Retention = Retention()
    state: State = State()
    catalog: Catalog = Catalog()
    tape: Tape = Tape()


def load(path: Path) -> Config:
    """Read and check one configuration file.

    Raises:
        ConfigError: it is missing, is not TOML, or a key is unknown or wrong; all that is wrong is named at once.
    """
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot read the configuration {path}: {reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    directory = path.resolve().parent
    try:
        config = Config.model_validate(data, context={"directory": directory})
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explained(error, data)}") from error
    if config.repository is not None and ":" not in config.repository.location.split("/", 1)[0]:
        location = str(directory / config.repository.location)
        repository = config.repository.model_copy(update={"location": location})
        config = config.model_copy(update={"repository": repository})
    return config


_WRONG = {
    "extra_forbidden": "no such key; see docs/configuration.md",
    "missing": "this key is needed",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a table: { … }",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "model_type": "must be a table: { … }",
    "string_pattern_mismatch": "is not written as docs/configuration.md shows",
    "string_type": "must be a text, in quotes",
    "tuple_type": "must be a list: [ … ]",
}


def _explained(error: ValidationError, data: dict[str, Any]) -> str:
    """All that is wrong, each key once: where several kinds of values would do, with what each of them wants."""
    problems: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        found = _WRONG.get(detail["type"]) or detail["msg"].removeprefix("Value error, ")
        key = _key(detail["loc"], data, missing=detail["type"] == "missing")
        problems.setdefault(key, []).append(found.replace("Input should be", "must be"))
    return "; ".join(f"{key}: {', or '.join(dict.fromkeys(found))}" for key, found in problems.items())


def _key(location: tuple[int | str, ...], data: Any, *, missing: bool) -> str:
    """A place in the file; pydantic goes on from there, with the kinds of values that it tried."""
    parts: list[str] = []
    for part in location:
        try:
            data = data[part]
        except (LookupError, TypeError):
            if not missing:
                break
        parts.append(str(part))
    return ".".join(parts)
