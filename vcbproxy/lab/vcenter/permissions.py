"""Who may do what: everything, but for the privileges that a test has taken away.

    HasPrivilegeOnEntities      a vCenter answers for each entity and privilege
    effectiveRole, roleList     what a lone ESXi host has instead: each entity's role, and the privileges of each role

An entity that may not be viewed and read is not in any list, as on the real thing.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from vcbproxy.lab.vcenter.inventory import Inventory, Managed
from vcbproxy.lab.vcenter.schema import moid, vim, vmodl

PRIVILEGES = (
    "System.Anonymous",
    "System.View",
    "System.Read",
    "Global.CancelTask",
    "Datastore.Browse",
    "VirtualMachine.Config.ChangeTracking",
    "VirtualMachine.Interact.PowerOff",
    "VirtualMachine.Interact.PowerOn",
    "VirtualMachine.Provisioning.DiskRandomRead",
    "VirtualMachine.State.CreateSnapshot",
    "VirtualMachine.State.RemoveSnapshot",
)
NEEDED: Mapping[str, str] = {
    "CreateSnapshot_Task": "VirtualMachine.State.CreateSnapshot",
    "CreateSnapshotEx_Task": "VirtualMachine.State.CreateSnapshot",
    "RemoveSnapshot_Task": "VirtualMachine.State.RemoveSnapshot",
    "RemoveAllSnapshots_Task": "VirtualMachine.State.RemoveSnapshot",
    "ConsolidateVMDisks_Task": "VirtualMachine.State.RemoveSnapshot",
    "ReconfigVM_Task": "VirtualMachine.Config.ChangeTracking",
    "QueryChangedDiskAreas": "VirtualMachine.Provisioning.DiskRandomRead",
    "PowerOnVM_Task": "VirtualMachine.Interact.PowerOn",
    "PowerOffVM_Task": "VirtualMachine.Interact.PowerOff",
}
_SEEING = ("System.View", "System.Read")
_FIRST_ROLE = 100


class Permissions:
    """Privileges by entity."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._lock = threading.Lock()
        self._taken: set[tuple[str, str]] = set()
        self._roles: list[frozenset[str]] = []
        self._manager = inventory.add(vim.AuthorizationManager, "AuthorizationManager", privilegeList=[], roleList=[])

    @property
    def ref(self) -> Any:
        """The AuthorizationManager."""
        return self._manager.ref

    def take(self, privilege: str, moref: str = "") -> None:
        """Take a privilege away, on one entity or on all."""
        assert privilege in PRIVILEGES, privilege
        with self._lock:
            self._taken.add((privilege, moref))
        self.show()

    def restore(self) -> None:
        """Give everything back."""
        with self._lock:
            self._taken.clear()
        self.show()

    def held(self, moref: str) -> frozenset[str]:
        """The privileges on an entity."""
        with self._lock:
            return frozenset(name for name in PRIVILEGES if not {(name, moref), (name, "")} & self._taken)

    def sees(self, ref: Any) -> bool:
        """Whether an entity is shown at all."""
        return not self._taken or self.held(moid(ref)).issuperset(_SEEING)

    def require(self, method: str, entity: Managed) -> None:
        """Refuse a call for which the privilege is missing.

        Raises:
            vim.fault.NoPermission: it is.
        """
        privilege = NEEDED.get(method)
        if privilege is not None and privilege not in self.held(entity.moref):
            raise vim.fault.NoPermission(
                object=entity.ref, privilegeId=privilege, msg="Permission to perform this operation was denied."
            )

    def answer(self, entities: list[Any], privileges: list[str], *, known: bool) -> list[Any]:
        """What HasPrivilegeOnEntities says; to an unknown session nothing is granted."""
        there = [self._inventory.get(entity) for entity in entities]
        for wrong in set(privileges) - set(PRIVILEGES):
            raise vmodl.fault.InvalidArgument(invalidProperty="privId", msg=f"no such privilege: {wrong}")
        kind = vim.AuthorizationManager
        return [
            kind.EntityPrivilege(
                entity=entity.ref,
                privAvailability=[
                    kind.PrivilegeAvailability(privId=name, isGranted=known and name in self.held(entity.moref))
                    for name in privileges
                ],
            )
            for entity in there
        ]

    def show(self) -> None:
        """Give every entity the role that has its privileges."""
        for entity in self._inventory.all_of(vim.ManagedEntity):
            self._inventory.set(entity, effectiveRole=[self._role(self.held(entity.moref))])
        roles = [
            vim.AuthorizationManager.Role(
                roleId=_FIRST_ROLE + number,
                system=False,
                name=f"role {number}",
                info=vim.Description(label=f"role {number}", summary=""),
                privilege=sorted(privileges),
            )
            for number, privileges in enumerate(self._roles)
        ]
        self._inventory.set(self._manager, roleList=roles)

    def _role(self, privileges: frozenset[str]) -> int:
        if privileges not in self._roles:
            self._roles.append(privileges)
        return _FIRST_ROLE + self._roles.index(privileges)
