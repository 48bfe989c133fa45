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
        self._paths: dict[str, tuple[str, ...] | None] = {root: ()}

    def path(self, moref: str | None) -> tuple[str, ...] | None:
        """The names from the top down to an object; None when something on the way is not shown to us."""
        if moref is None:
            return None
        if moref not in self._paths:
            self._paths[moref] = self._way(moref)
        return self._paths[moref]

    def _way(self, moref: str) -> tuple[str, ...] | None:
        names: list[str] = []
        here: str | None = moref
        for _ in range(_LEVELS_MAX):
            if here == self._root:
                return tuple(reversed(names))
            place = None if here is None else self._known.get(here)
            if place is None:
                return None
            if place.shown:
                names.append(place.name)
            here = place.parent
        return None


def _parent(row: Row) -> str | None:
    above = row.get("parentFolder") or row.get("parent")
    return None if above is None else moref_of(above)
