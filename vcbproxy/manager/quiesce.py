"""Why a guest did not come to rest: the manager's faults, told apart, each with what an administrator can do about it.

Comes in: what failed, as an error of ours. Goes out: ``Unquiesced``, or nothing when the guest was not to blame; then
asking it again, or doing without it, would only hide the cause.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vcbproxy.config import Quiesce
from vcbproxy.errors import ManagerError, TaskFailed
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.vm import Power, Vm


class Cause(Enum):
    """What kept a snapshot from being quiesced. The values stand in restore points' manifests: never reword them."""

    NOT_ASKED = "not-asked"
    POWERED_OFF = "powered-off"  # at rest by itself
    SUSPENDED = "suspended"
    NO_TOOLS = "no-tools"
    TOOLS_UNAVAILABLE = "tools-unavailable"
    APPLICATIONS = "applications"
    FILE_SYSTEMS = "file-systems"
    TIMEOUT = "timeout"
    SNAPSHOT_FAULT = "snapshot-fault"
    UNCONFIRMED = "unconfirmed"
    SWITCHED_ON = "switched-on"


_WORDS = {
    Cause.NOT_ASKED: "not asked for",
    Cause.POWERED_OFF: "the VM is off",
    Cause.SUSPENDED: "the VM is suspended: what its guest had not written yet is in its memory file",
    Cause.NO_TOOLS: "VMware Tools do not run in the guest",
    Cause.TOOLS_UNAVAILABLE: "VMware Tools do not answer; restart them in the guest",
    Cause.APPLICATIONS: "its applications did not come to rest; in Windows see `vssadmin list writers`, in Linux the "
    "freeze scripts",
    Cause.FILE_SYSTEMS: "its file systems did not come to rest; the guest may be too busy: try at another hour",
    Cause.TIMEOUT: "it did not come to rest in time; see [backup] quiesce_timeout_s",
    Cause.SNAPSHOT_FAULT: "the manager could not quiesce it",
    Cause.UNCONFIRMED: "the manager says that it is not quiesced, although that was asked for",
    Cause.SWITCHED_ON: "it was off as the snapshot was asked for, and ran right after it",
}
_FAULTS = {
    "ApplicationQuiesceFault": Cause.APPLICATIONS,
    "FilesystemQuiesceFault": Cause.FILE_SYSTEMS,
    "ToolsUnavailable": Cause.TOOLS_UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class Unquiesced:
    """Why a snapshot is not quiesced; ``said`` is what the manager said, if it was asked at all."""

    cause: Cause
    said: str = ""

    def __str__(self) -> str:
        """In words, the manager's own last."""
        return f"{_WORDS[self.cause]} ({self.said})" if self.said else _WORDS[self.cause]


def beforehand(vm: Vm, quiesce: Quiesce) -> Unquiesced | None:
    """Why there is no point in asking the guest; None when it can be asked."""
    if quiesce is Quiesce.OFF:
        return Unquiesced(Cause.NOT_ASKED)
    if vm.power_state is not Power.ON:
        return Unquiesced(Cause.POWERED_OFF if vm.power_state is Power.OFF else Cause.SUSPENDED)
    return None if vm.tools_running else Unquiesced(Cause.NO_TOOLS)


def blamed_on_guest(error: ManagerError) -> Unquiesced | None:
    """The guest's part in a failed creation; None when something else is wrong.

    Managers tell of guests that do not come to rest by several faults, some of them as general as SystemError, so what
    is in no table and ended a quiesced creation's task counts as the guest's doing.
    """
    trouble = trouble_of(error)
    if trouble is Trouble.UNFINISHED:
        return Unquiesced(Cause.TIMEOUT, str(error))
    general = isinstance(error, TaskFailed) and trouble is Trouble.OTHER
    if trouble is not Trouble.QUIESCE and not general:
        return None
    return Unquiesced(_FAULTS.get(str(error.facts.get("fault")), Cause.SNAPSHOT_FAULT), str(error))
