"""What VMs lie in: datacenters, folders in folders, vApps; made when the first VM asks for them.

Datacenters (group-d1) ─┬─ DC0 ─┬─ vm ─┬─ a folder ─ … ─ VMs
                        └─ DC1  │      └─ a vApp: its VMs have no parent, it is a resource pool as well
                                ├─ host, datastore, network
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from vcbproxy.lab.vcenter.inventory import Inventory, Managed
from vcbproxy.lab.vcenter.schema import vim

FIRST = "DC0"
ROOT = "group-d1"
POOL = "resgroup-9"
_KINDS = ("vm", "host", "datastore", "network")
_APART = 1000  # between the ids of datacenters


class Tree:
    """The part of the inventory that VMs hang in."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._root = inventory.get(vim.Folder(ROOT, None))
        self._numbers = itertools.count(100)
        self._datacenters: dict[str, dict[str, Managed]] = {}
        self._homes: dict[tuple[str, ...], Managed] = {}

    def datacenter(self, name: str) -> dict[str, Managed]:
        """The four folders of a datacenter by their kinds."""
        if name in self._datacenters:
            return self._datacenters[name]
        add, after = self._inventory.add, len(self._datacenters) * _APART
        datacenter = add(
            vim.Datacenter, f"datacenter-{2 + after}", name=name, parent=self._root.ref, network=[], datastore=[]
        )
        self._append(self._root, [datacenter.ref])
        folders = {
            kind: add(vim.Folder, f"group-{kind[0]}{3 + after}", name=kind, parent=datacenter.ref, childEntity=[])
            for kind in _KINDS
        }
        self._inventory.set(datacenter, **{f"{kind}Folder": folder.ref for kind, folder in folders.items()})
        self._datacenters[name] = folders
        return folders

    def home(self, datacenter: str, path: str, vapp: str = "") -> Managed:
        """The folder at a path such as ``prod/web`` (empty: the one on top), or the vApp in it."""
        here = self.datacenter(datacenter)["vm"]
        names = path.split("/") if path else []
        for depth in range(1, len(names) + 1):
            here = self._below(here, (datacenter, *names[:depth]))
        return self._vapp(here, (datacenter, *names, "", vapp)) if vapp else here

    def put(self, home: Managed, vms: Iterable[Managed]) -> None:
        """Put VMs into a folder or a vApp."""
        listed = list(vms)
        inside = isinstance(home.ref, vim.VirtualApp)
        for vm in listed:
            self._inventory.set(vm, **({"parentVApp": home.ref} if inside else {"parent": home.ref}))
        self._append(home, [vm.ref for vm in listed], "vm" if inside else "childEntity")

    def _below(self, above: Managed, key: tuple[str, ...]) -> Managed:
        if key not in self._homes:
            moref = f"group-v{next(self._numbers)}"
            folder = self._inventory.add(vim.Folder, moref, name=key[-1], parent=above.ref, childEntity=[])
            self._append(above, [folder.ref])
            self._homes[key] = folder
        return self._homes[key]

    def _vapp(self, folder: Managed, key: tuple[str, ...]) -> Managed:
        if key not in self._homes:
            vapp = self._inventory.add(
                vim.VirtualApp,
                f"resgroup-v{next(self._numbers)}",
                name=key[-1],
                parent=vim.ResourcePool(POOL, None),
                parentFolder=folder.ref,
                vm=[],
                resourcePool=[],
            )
            self._append(folder, [vapp.ref])
            self._homes[key] = vapp
        return self._homes[key]

    def _append(self, holder: Managed, refs: list[Any], name: str = "childEntity") -> None:
        self._inventory.set(holder, **{name: [*holder.properties.get(name, []), *refs]})
