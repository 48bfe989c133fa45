"""From the configuration to a session with the manager, and to the datastores on the LUNs this proxy sees."""

from __future__ import annotations

import socket

from jobs.ownership import Registry, default_directory
from vcbproxy.config import Config
from vcbproxy.errors import ConfigError
from vcbproxy.manager import inventory
from vcbproxy.manager.session import ManagerAddress, Session, connect, connect_when_up
from vcbproxy.san import discover
from vcbproxy.san.opened import OpenLuns
from vcbproxy.source.storage import Storage


def to_manager(config: Config, *, wait: bool = False) -> Session:
    """Log in at the configured manager.

    Args:
        config: names it.
        wait: until it is up, as long as ``retry_s`` says: for jobs at night, which no one starts again.

    Raises:
        ConfigError: none is configured.
        CredentialsError: the login was refused.
        ManagerError: it cannot be reached or trusted.
    """
    manager = config.manager
    if manager is None:
        raise ConfigError(
            "no manager: write [manager] in the configuration and give it with --config or VCBPROXY_CONFIG"
        )
    address = ManagerAddress(
        host=manager.host,
        port=manager.port,
        ca_file=manager.ca_file,
        thumbprint_sha256=manager.thumbprint,
        timeout_s=manager.timeout_s,
        retry_s=manager.retry_s,
    )
    log_in = connect_when_up if wait else connect
    return log_in(address, manager.username, lambda: manager.password(f"{manager.username} at {manager.host}"))


def storage(config: Config, session: Session) -> Storage:
    """The manager's datastores as they lie on this proxy."""
    mounts = {mount.datastore: mount.path for mount in config.san.mounts}
    opened = OpenLuns(config.san.read_timeout_s)
    return Storage(inventory.datastores(session), discover.listed(config.san), mounts, opened)


def registry(config: Config) -> Registry:
    """Which job runs of this proxy are alive.

    Raises:
        ConfigError: the state directory cannot be used.
    """
    return Registry(config.state.directory or default_directory(), socket.gethostname())
