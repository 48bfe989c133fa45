"""How a snapshot says that it is ours: its description starts with ``vcbproxy:<job run id>@<host>``.

Only a snapshot whose description reads so is ever removed by us; the job run id tells a live job's from a dead one's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vcbproxy.errors import UsageError

_TEXT = re.compile(r"vcbproxy:(?P<job_run_id>[A-Za-z0-9._-]{1,128})@(?P<host>[A-Za-z0-9._-]{1,255})(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Marker:
    """The job run that made a snapshot, and the proxy it ran on."""

    job_run_id: str
    host: str

    def __post_init__(self) -> None:
        """Refuse what could not be read back.

        Raises:
            UsageError: the id or the host name holds other than letters, digits, dots, dashes and underscores.
        """
        if _TEXT.fullmatch(str(self)) is None:
            raise UsageError(
                f"not usable in a snapshot's marker: job run {self.job_run_id!r} on host {self.host!r}; "
                "give this machine a host name of letters, digits, dots, dashes and underscores"
            )

    def __str__(self) -> str:
        return f"vcbproxy:{self.job_run_id}@{self.host}"

    @property
    def description(self) -> str:
        """The snapshot's whole description, for whoever meets it in the client."""
        return f"{self} holds this virtual machine still while it is backed up; it is removed when that ends."

    @classmethod
    def read(cls, description: str | None) -> Marker | None:
        """The marker at the start of a description, or None: then the snapshot is somebody else's."""
        match = _TEXT.match(description or "")
        return cls(match["job_run_id"], match["host"]) if match else None
