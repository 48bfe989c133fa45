"""Where VMs lie in the manager's tree: the way from a VM up to the root, through one table of parents.

    group-d1 Datacenters ─ DC0 ─ vm ─ prod ─ web ─ vm-20        the folder of vm-20 is ("DC0", "prod", "web")
             └ left out          └ left out: every datacenter has just one folder ``vm``, and clients do not show it

A VM in a vApp has no parent of its own: the vApp stands for a folder, and lies where its ``parentFolder`` says, or in
another vApp.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from vcbproxy.errors import ManagerError
from vcbproxy.manager import convert
from vcbproxy.manager.properties import Row
from vcbproxy.manager.wire import moref_of

_LEVELS_MAX = 100

# What is asked of everything that can lie between a VM and the root.
ABOVE: Mapping[Any, tuple[str, ...]] = {
    vim.Datacenter: ("name", "parent", "vmFolder"),
    vim.Folder: ("name", "parent"),
    vim.VirtualApp: ("name", "parent", "parentFolder"),
}


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    parent: str | None
    shown: bool


class Places:
    """Everything that VMs can lie in."""

    def __init__(self, rows: Iterable[Row], root: str) -> None:
        """Learn the tree.

        Args:
            rows: of all objects of the kinds in ``ABOVE``, with what it asks of them.
            root: moref of the root folder.
        """
        rows = list(rows)
        hidden = {moref_of(top) for row in rows if (top := row.get("vmFolder")) is not None} | {root}
        self._root = root
        self._known = {
            row.moref: _Place(convert.unescaped(row.get("name") or row.moref), _parent(row), row.moref not in hidden)
            for row in rows
        }
        self._paths: dict[str, tuple[str, ...]] = {root: ()}

    def path(self, moref: str | None, vm: str) -> tuple[str, ...] | None:
        """The names from the top down to an object; None when it lies nowhere that the manager tells of.

        Args:
            moref: what the VM lies in.
            vm: its name, for the message.

        Raises:
            ManagerError: something on the way is not shown to us.
        """
        if moref is None:
            return None
        found = self._paths.get(moref)
        if found is None:
            found = self._paths[moref] = self._way(moref, vm)
        return found

    def _way(self, moref: str, vm: str) -> tuple[str, ...]:
        names: list[str] = []
        here = moref
        for _ in range(_LEVELS_MAX):
            if here == self._root:
                return tuple(reversed(names))
            place = self._known.get(here)
            if place is None or place.parent is None:
                raise ManagerError(
                    f"{vm}: the manager does not show all folders above it ({here} is missing): "
                    "give this user the role Read-only on the datacenter, or select without folder:"
                )
            if place.shown:
                names.append(place.name)
            here = place.parent
        raise ManagerError(f"{vm}: the folders above it go round in a circle")


def _parent(row: Row) -> str | None:
    above = row.get("parentFolder") or row.get("parent")
    return None if above is None else moref_of(above)
