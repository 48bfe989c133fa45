"""Where virtual machines are found: the manager, and what the proxy reads from beside the LUNs it finds by itself."""

from __future__ import annotations

from pydantic import Field, model_validator

from vcbproxy.config.base import FilePath, Secret, Section


class Manager(Secret):
    """Where the manager is and who we are there."""

    host: str
    port: int = Field(443, ge=1, le=65535)
    username: str
    ca_file: FilePath | None = None
    thumbprint: str | None = None
    timeout_s: float = Field(60, gt=0)
    retry_s: float = Field(900, ge=0)

    @model_validator(mode="after")
    def _one_trust(self) -> Manager:
        if self.ca_file is not None and self.thumbprint is not None:
            raise ValueError("give ca_file or thumbprint, not both")
        if not self.given:
            raise ValueError("give password_file, password_command or password_credential")
        return self


class Image(Section):
    """A plain file or loop device that stands for a LUN."""

    path: FilePath
    wwn: str = ""


class Mount(Section):
    """An NFS datastore, mounted on the proxy."""

    datastore: str
    path: FilePath


class San(Section):
    """What the proxy reads from beside the LUNs it finds by itself."""

    images: tuple[Image, ...] = ()
    mounts: tuple[Mount, ...] = ()
    discover: bool = True
    read_timeout_s: float = Field(300, gt=0)
