"""What a fault of the manager, or of the way to it, means for us: one table, one translation.

Comes in: an exception out of pyVmomi, http.client, ssl or socket. Goes out: an error of ours whose ``trouble`` says
what may be done about it. Most specific wins; what is in no table is ``OTHER`` and is not repeated.
"""

from __future__ import annotations

import socket
import ssl
from enum import Enum
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from xml.parsers.expat import ExpatError

from pyVmomi import vim, vmodl

from vcbproxy.errors import CredentialsError, Error, ManagerError


class Trouble(Enum):
    """What kind of failure it was, by what to do next."""

    CONNECTION = "connection"  # the way to the manager: a read may be repeated; an action may or may not have happened
    SESSION = "session"  # not logged in (any more): log in and repeat
    BUSY = "busy"  # another operation on the same VM: wait and repeat
    GONE = "gone"  # the object does not exist (any more)
    QUIESCE = "quiesce"  # the guest could not be brought to rest
    REFUSED = "refused"  # this VM, as it is, can have no snapshot: not the guest's doing, so asking it again is vain
    PERMISSION = "permission"  # a privilege is missing: never repeat
    CANCELLED = "cancelled"  # somebody cancelled the task
    UNFINISHED = "unfinished"  # a task still runs, and was waited for long enough
    TRUST = "trust"  # the certificate is not the one expected: never repeat
    OTHER = "other"


# Subclasses before their parents: NotAuthenticated is a NoPermission, and that a SecurityError.
_FAULTS: tuple[tuple[type[BaseException], Trouble], ...] = (
    (vim.fault.NotAuthenticated, Trouble.SESSION),
    (vim.fault.NoPermission, Trouble.PERMISSION),
    (vmodl.fault.SecurityError, Trouble.PERMISSION),
    (vim.fault.TaskInProgress, Trouble.BUSY),
    (vim.fault.ConcurrentAccess, Trouble.BUSY),
    (vim.fault.FileLocked, Trouble.BUSY),
    (vmodl.fault.ManagedObjectNotFound, Trouble.GONE),
    (vim.fault.ToolsUnavailable, Trouble.QUIESCE),
    (vim.fault.SnapshotDisabled, Trouble.REFUSED),
    (vim.fault.SnapshotLocked, Trouble.REFUSED),
    (vim.fault.TooManySnapshotLevels, Trouble.REFUSED),
    (vim.fault.MultipleSnapshotsNotSupported, Trouble.REFUSED),
    (vim.fault.SnapshotIncompatibleDeviceInVm, Trouble.REFUSED),
    (vim.fault.MemorySnapshotOnIndependentDisk, Trouble.REFUSED),
    (vim.fault.NoDiskSpace, Trouble.REFUSED),
    (vim.fault.SnapshotFault, Trouble.QUIESCE),
    (vmodl.fault.RequestCanceled, Trouble.CANCELLED),
    (vmodl.fault.HostCommunication, Trouble.CONNECTION),
    (vim.fault.HostConnectFault, Trouble.CONNECTION),
)

# What a wrong answer looks like by the time pyVmomi's deserialiser has tripped over it.
NONSENSE = (ExpatError, TypeError, ValueError, LookupError, AttributeError, RecursionError, ArithmeticError)


def trouble_of_fault(fault: object) -> Trouble:
    """Sort a fault of the manager."""
    return next((trouble for kind, trouble in _FAULTS if isinstance(fault, kind)), Trouble.OTHER)


def name_of(fault: object) -> str:
    """The fault's own name, without its package."""
    return type(fault).__name__.rpartition(".")[2]


def trouble_of(error: BaseException) -> Trouble:
    """What kind of trouble one of our errors was made of."""
    trouble = getattr(error, "trouble", None)
    return trouble if isinstance(trouble, Trouble) else Trouble.OTHER


def unheard(error: BaseException) -> bool:
    """Whether no connection came about, so that the manager cannot have heard the request."""
    return trouble_of(error) is Trouble.CONNECTION and getattr(error, "unheard", False) is True


def reason(fault: object) -> str:
    """Say in one line what the manager said: its message, the fault's name, and the facts we know how to print."""
    name = name_of(fault)
    text = " ".join(str(getattr(fault, "msg", None) or "").split())
    causes = [
        " ".join(str(message.message or message.key).split())
        for message in getattr(fault, "faultMessage", None) or []
        if getattr(message, "message", None) or getattr(message, "key", None)
    ]
    said = "; ".join(dict.fromkeys(part for part in (text, *causes) if part))
    if isinstance(fault, vim.fault.NoPermission) and fault.privilegeId:
        said = f"the privilege {fault.privilegeId} is missing" + (f"; {said}" if said else "")
    return f"{said} ({name})" if said else name


def translated(error: BaseException, manager: str, doing: str, *, unheard: bool = False) -> Error:
    """Make an error of ours from whatever a call to the manager raised.

    Args:
        error: the exception.
        manager: host and port, for the message.
        doing: what was asked of the manager: the method's name.
        unheard: the request was not even sent.
    """
    if isinstance(error, Error):
        return error
    if isinstance(error, vim.fault.InvalidLogin):
        return CredentialsError(f"{manager} refused the login: wrong user name or password", trouble=Trouble.PERMISSION)
    if isinstance(error, vim.fault.NoPermission) and doing == "Login":
        return CredentialsError(f"{manager} refused the login: {reason(error)}", trouble=Trouble.PERMISSION)
    if isinstance(error, vmodl.MethodFault):
        trouble = trouble_of_fault(error)
        return ManagerError(f"{manager}: {doing}: {reason(error)}", trouble=trouble, fault=name_of(error))
    if isinstance(error, OSError | HTTPException):
        trouble = Trouble.TRUST if isinstance(error, ssl.SSLCertVerificationError) else Trouble.CONNECTION
        return ManagerError(f"{manager}: {_connection(error)}", trouble=trouble, unheard=unheard)
    return ManagerError(f"{manager}: {doing}: the answer makes no sense: {_one_line(error)}", trouble=Trouble.OTHER)


def _connection(error: OSError | HTTPException) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return (
                f"its certificate is not trusted: {getattr(error, 'verify_message', None) or _one_line(error)}; "
                "give its CA as ca_file, or its SHA-256 thumbprint"
            )
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return "connection lost: the other end hung up without a word"
        case ssl.SSLError():
            return (
                f"TLS failed: {getattr(error, 'reason', None) or _one_line(error)}; is that the manager's HTTPS port?"
            )
        case socket.gaierror():
            return f"the host name cannot be resolved: {error.strerror}"
        case ConnectionRefusedError():
            return "connection refused; is the manager up, and the port right?"
        case TimeoutError():
            return "no answer in time"
        case RemoteDisconnected() | IncompleteRead():
            return "connection lost before the answer was whole"
        case HTTPException() if str(error).startswith("503"):
            return f"not ready to answer, as while it starts: {_one_line(error)}"
        case HTTPException():
            return f"broken HTTP answer: {_one_line(error) or type(error).__name__}"
        case _:
            return f"connection lost: {error.strerror or _one_line(error) or type(error).__name__}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
