"""Which privileges our user lacks, and where, asked before a backup stumbles over them at night.

A vCenter is asked for each entity and privilege (HasPrivilegeOnEntities, API 5.5 and later; no ESXi host has it). A
host, and whatever else refuses that, is asked for our effective role on each entity and for what the roles contain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from pyVmomi import vim

from vcbproxy.errors import ManagerError
from vcbproxy.manager import properties
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.session import Session
from vcbproxy.manager.wire import Wire, moref_of

# What a backup calls: CreateSnapshot_Task; RemoveSnapshot_Task and ConsolidateVMDisks_Task.
BACKUP = ("VirtualMachine.State.CreateSnapshot", "VirtualMachine.State.RemoveSnapshot")
_ENTITIES_MAX = 200


def missing(session: Session, morefs: Sequence[str], privileges: Sequence[str] = BACKUP) -> dict[str, list[str]]:
    """The VMs on which our user lacks a privilege, by the privilege's name; empty when nothing is missing.

    Raises:
        ManagerError: the manager does not tell.
    """
    lacking: dict[str, list[str]] = {}
    for batch in _batches(morefs):
        for privilege, moref in _lacking(session, batch, privileges):
            lacking.setdefault(privilege, []).append(moref)
    return lacking


def _lacking(session: Session, morefs: list[str], privileges: Sequence[str]) -> list[tuple[str, str]]:
    if session.about.is_vcenter:
        try:
            return session.read(lambda wire: _asked(wire, morefs, privileges))
        except ManagerError as error:
            if trouble_of(error) is not Trouble.OTHER:
                raise
    return session.read(lambda wire: _by_role(wire, morefs, privileges))


def _asked(wire: Wire, morefs: list[str], privileges: Sequence[str]) -> list[tuple[str, str]]:
    sessions, authorization = wire.content.sessionManager, wire.content.authorizationManager
    current = None if sessions is None else sessions.currentSession
    if authorization is None or current is None:
        raise ManagerError("the manager does not tell who we are", trouble=Trouble.OTHER)
    entities: list[Any] = [wire.object(vim.VirtualMachine, moref) for moref in morefs]
    answers = authorization.HasPrivilegeOnEntities(entities, current.key, list(privileges))
    return [
        (told.privId, moref_of(answer.entity))
        for answer in answers
        for told in answer.privAvailability
        if not told.isGranted
    ]


def _by_role(wire: Wire, morefs: list[str], privileges: Sequence[str]) -> list[tuple[str, str]]:
    authorization = wire.content.authorizationManager
    if authorization is None:
        raise ManagerError("the manager does not tell what may be done", trouble=Trouble.OTHER)
    roles = {role.roleId: set(role.privilege) for role in authorization.roleList}
    lacking = []
    for moref in morefs:
        row = properties.of_one(wire, wire.object(vim.VirtualMachine, moref), ["effectiveRole"])
        ours = row.need("effectiveRole")
        held = set().union(*(roles.get(number, set()) for number in ours))
        lacking += [(privilege, moref) for privilege in privileges if privilege not in held]
    return lacking


def _batches(morefs: Iterable[str]) -> Iterator[list[str]]:
    waiting = iter(morefs)
    while batch := list(islice(waiting, _ENTITIES_MAX)):
        yield batch
