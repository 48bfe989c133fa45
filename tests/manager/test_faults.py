"""Every foreign exception becomes one of ours: a clear line, and what may be done about it."""

from __future__ import annotations

import socket
import ssl
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from xml.parsers.expat import ExpatError

import pytest
from pyVmomi import vim, vmodl

from vcbproxy.errors import CredentialsError, Error, ManagerError, TaskFailed
from vcbproxy.manager.faults import Trouble, reason, translated, trouble_of


@pytest.mark.parametrize(
    ("fault", "trouble"),
    [
        (vim.fault.NotAuthenticated(), Trouble.SESSION),
        (vim.fault.NoPermission(), Trouble.PERMISSION),
        (vim.fault.TaskInProgress(), Trouble.BUSY),
        (vim.fault.ConcurrentAccess(), Trouble.BUSY),
        (vmodl.fault.ManagedObjectNotFound(), Trouble.GONE),
        (vim.fault.ApplicationQuiesceFault(), Trouble.QUIESCE),
        (vim.fault.FilesystemQuiesceFault(), Trouble.QUIESCE),
        (vim.fault.ToolsUnavailable(), Trouble.QUIESCE),
        (vmodl.fault.RequestCanceled(), Trouble.CANCELLED),
        (vim.fault.FileFault(), Trouble.OTHER),
        (vmodl.fault.SystemError(), Trouble.OTHER),
        (ConnectionResetError(104, "Connection reset by peer"), Trouble.CONNECTION),
        (RemoteDisconnected("gone"), Trouble.CONNECTION),
        (IncompleteRead(b""), Trouble.CONNECTION),
        (TimeoutError(), Trouble.CONNECTION),
        (ssl.SSLCertVerificationError("bad"), Trouble.TRUST),
        (ExpatError("not well-formed"), Trouble.OTHER),
        (TypeError('For "entity" expected type'), Trouble.OTHER),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value.value,
)
def test_each_is_sorted(fault: BaseException, trouble: Trouble) -> None:
    error = translated(fault, "vc:443", "DoThis")
    assert isinstance(error, ManagerError)
    assert trouble_of(error) is trouble
    assert str(error).startswith("vc:443: ")
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (socket.gaierror(-2, "Name or service not known"), "cannot be resolved"),
        (ConnectionRefusedError(111, "Connection refused"), "connection refused"),
        (TimeoutError(), "no answer in time"),
        (OSError(113, "No route to host"), "No route to host"),
        (RemoteDisconnected("closed"), "before the answer was whole"),
        (IncompleteRead(b"", 9), "before the answer was whole"),
        (HTTPException("503 Service Unavailable"), "not ready"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "TLS failed"),
    ],
)
def test_the_cause_is_named(error: OSError | HTTPException, cause: str) -> None:
    assert cause in str(translated(error, "vc:443", "Login"))


def test_a_refused_login_is_about_credentials() -> None:
    assert isinstance(translated(vim.fault.InvalidLogin(), "vc:443", "Login"), CredentialsError)
    assert isinstance(
        translated(vim.fault.NoPermission(privilegeId="System.View"), "vc:443", "Login"), CredentialsError
    )


def test_a_missing_privilege_is_named() -> None:
    fault = vim.fault.NoPermission(privilegeId="VirtualMachine.State.CreateSnapshot", msg="Permission was denied.")
    assert "VirtualMachine.State.CreateSnapshot" in str(translated(fault, "vc:443", "CreateSnapshot_Task"))


def test_what_the_manager_said_fits_a_line() -> None:
    fault = vim.fault.ApplicationQuiesceFault(
        msg="An error occurred\nwhile quiescing.",
        faultMessage=[vmodl.LocalizableMessage(key="msg.snapshot.quiesce", message="VSS writer failed")],
    )
    assert reason(fault) == "An error occurred while quiescing.; VSS writer failed (ApplicationQuiesceFault)"


def test_our_own_errors_pass() -> None:
    ours: Error = TaskFailed(task="CreateSnapshot", entity="web01", reason="no", trouble=Trouble.BUSY)
    assert translated(ours, "vc:443", "x") is ours
    assert trouble_of(ours) is Trouble.BUSY
    assert trouble_of(ValueError()) is Trouble.OTHER
