"""The managed objects: references with properties, and when each property last changed.

A property is set as a whole and never changed in place, so an answer that is being written cannot tear. One condition
guards all of them; ``WaitForUpdatesEx`` sleeps on it.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from typing import Any

from vcbproxy.lab.vcenter.schema import moid, support, vim, vmodl

_STEP = re.compile(r"([A-Za-z]\w*)|\[([^\]]+)\]")
_CHILDREN = (
    (vim.Folder, ("childEntity",)),
    (vim.Datacenter, ("vmFolder", "hostFolder", "datastoreFolder", "networkFolder")),
    (vim.ComputeResource, ("host", "resourcePool")),
    (vim.ResourcePool, ("resourcePool", "vm")),
)


class Managed:
    """One managed object."""

    def __init__(self, ref: Any) -> None:
        self.ref = ref
        self.properties: dict[str, Any] = {}
        self.revisions: dict[str, int] = {}

    @property
    def moref(self) -> str:
        """Its id."""
        return moid(self.ref)

    def property(self, path: str) -> Any:
        """The value at a path such as ``config.hardware.device[2000].backing``; None where nothing is set.

        Raises:
            vmodl.query.InvalidProperty: the type has no such property.
        """
        value: Any = None
        declared: Any = type(self.ref)
        for number, match in enumerate(_STEP.finditer(path)):
            name, key = match.groups()
            if key is not None:
                value = _keyed(value, key.strip('"'))
            else:
                declared = _declared(declared, name, path)
                value = self.properties.get(name) if number == 0 else getattr(value, name, None)
        return _typed(value, declared)


def _typed(value: Any, declared: Any) -> Any:
    """The value as the schema types it: among properties it goes out under its own type's name.

    Clients that are strict take neither a string for an enumeration nor an int for a long.
    """
    if isinstance(value, list):
        return value if isinstance(value, support.Array) else declared(value)
    plain = type(value) in (str, int, float)
    return (
        declared(value) if plain and isinstance(declared, type) and issubclass(declared, str | int | float) else value
    )


def _declared(holder: Any, name: str, path: str) -> Any:
    try:
        return support.GetPropertyInfo(holder, name).type
    except (AttributeError, KeyError, TypeError) as error:
        raise vmodl.query.InvalidProperty(name=path, msg=f"no such property: {path}") from error


def _keyed(values: Any, key: str) -> Any:
    return next((value for value in values or () if str(getattr(value, "key", None)) == key), None)


class Inventory:
    """All managed objects of a server."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.revision = 0
        self._objects: dict[str, Managed] = {}
        self._numbers = itertools.count(1)

    def add(self, kind: Any, moref: str = "", **properties: Any) -> Managed:
        """Put an object in; without an id it gets one of its own."""
        name = moref or f"{support.GetWsdlName(kind).lower()}-lab{next(self._numbers)}"
        managed = Managed(kind(name, None))
        with self.changed:
            self._objects[name] = managed
            self.set(managed, **properties)
        return managed

    def set(self, managed: Managed, **properties: Any) -> None:
        """Set properties, and wake whoever waits for that."""
        with self.changed:
            self.revision += 1
            managed.properties.update(properties)
            managed.revisions.update(dict.fromkeys(properties, self.revision))
            self.changed.notify_all()

    def remove(self, ref: Any) -> None:
        """Take an object out."""
        with self.changed:
            self.revision += 1
            self._objects.pop(moid(ref), None)
            self.changed.notify_all()

    def find(self, ref: Any) -> Managed | None:
        """An object, if it is there."""
        return self._objects.get(moid(ref))

    def get(self, ref: Any) -> Managed:
        """An object.

        Raises:
            vmodl.fault.ManagedObjectNotFound: there is none, or no more.
        """
        found = self.find(ref) if ref is not None else None
        if found is None:
            raise vmodl.fault.ManagedObjectNotFound(
                obj=ref, msg=f"The object '{ref}' has already been deleted or has not been completely created"
            )
        return found

    def all_of(self, kind: Any) -> list[Managed]:
        """All objects of a type."""
        with self.changed:
            return [managed for managed in self._objects.values() if isinstance(managed.ref, kind)]

    def below(self, ref: Any) -> Iterator[Any]:
        """References of all that is under an object in the inventory tree; each once."""
        seen: set[str] = set()
        waiting = [ref]
        while waiting:
            managed = self.find(waiting.pop())
            for child in [] if managed is None else children(managed):
                if moid(child) not in seen:
                    seen.add(moid(child))
                    waiting.append(child)
                    yield child

    def by_path(self, path: str) -> Any:
        """The entity at an inventory path such as ``DC0/vm/web01``; None when there is none."""
        here: Any = vim.Folder("group-d1", None)
        for part in path.strip("/").split("/"):
            named = (child for child in children(self.get(here)) if self.get(child).properties.get("name") == part)
            here = next(named, None)
            if here is None:
                return None
        return here


def children(managed: Managed) -> list[Any]:
    """References right under an object."""
    found: list[Any] = []
    for kind, names in _CHILDREN:
        for name in names if isinstance(managed.ref, kind) else ():
            value = managed.properties.get(name)
            if value is not None:
                found += value if isinstance(value, list) else [value]
    return found
