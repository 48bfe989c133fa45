"""The property collector: filter specifications walked over the inventory, answers in pages, updates as they come."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from vcbproxy.lab.vcenter.inventory import Inventory, Managed
from vcbproxy.lab.vcenter.schema import moid, support, vim, vmodl

_Collector = vmodl.query.PropertyCollector
OWN_COLLECTOR = "propertyCollector"
PAGE_MAX = 1000
_WAIT_S = 600.0
_FIRST_NAME = re.compile(r"\w+")

Own = Mapping[tuple[str, str], Any]
_NOTHING: Own = MappingProxyType({})


@dataclass(slots=True)
class _Filter:
    ref: Any
    spec: Any
    seen: set[str] = field(default_factory=set)


class Collectors:
    """Everything clients may ask of property collectors."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._pages: dict[str, tuple[list[Any], int, str]] = {}
        self._filters: dict[str, list[_Filter]] = {}
        self._cancelled: set[str] = set()
        self._era = 0
        self._stopping = False
        self.page_max = PAGE_MAX

    def stop(self) -> None:
        """Let all that wait return."""
        with self._inventory.changed:
            self._stopping = True
            self._inventory.changed.notify_all()

    def forget(self) -> None:
        """Lose all pages, collectors of clients, filters and views; whoever waits gets nothing."""
        with self._inventory.changed:
            self._pages.clear()
            self._filters.clear()
            self._cancelled.clear()
            self._era += 1
            for kind in (_Collector.Filter, _Collector, vim.view.ContainerView):
                for managed in self._inventory.all_of(kind):
                    if managed.moref != OWN_COLLECTOR:
                        self._inventory.remove(managed.ref)

    # RetrieveProperties*

    def retrieve(self, specs: Sequence[Any], own: Own = _NOTHING) -> list[Any]:
        """All objects that the specifications select, with the properties asked for.

        Args:
            specs: what is asked for.
            own: what only the caller sees so: (moref, property) → value.
        """
        with self._inventory.changed:
            return [content for spec in specs for content in _Walk(self._inventory, spec, own).contents()]

    def retrieve_page(self, specs: Sequence[Any], options: Any, session: str, own: Own = _NOTHING) -> Any:
        """The first page of it, with a token when there are more; None when nothing was selected."""
        limit = min((options and options.maxObjects) or self.page_max, self.page_max)
        return self._page(self.retrieve(specs, own), limit, session)

    def next_page(self, token: str, session: str) -> Any:
        """The page that a token stands for; each token is good for once, in the session that got it."""
        with self._inventory.changed:
            rest = self._pages.pop(token, None)
        if rest is None or rest[2] != session:
            raise vmodl.fault.InvalidArgument(
                invalidProperty="token", msg="A specified parameter was not correct: token"
            )
        return self._page(*rest)

    def cancel_pages(self, token: str) -> None:
        """Forget the rest."""
        with self._inventory.changed:
            self._pages.pop(token, None)

    def _page(self, contents: list[Any], limit: int, session: str) -> Any:
        if not contents:
            return None
        token = None
        if len(contents) > limit:
            token = uuid.uuid4().hex
            with self._inventory.changed:
                self._pages[token] = (contents[limit:], limit, session)
        return _Collector.RetrieveResult(objects=contents[:limit], token=token)

    # Filters and updates

    def new_collector(self) -> Any:
        """A collector of the client's own."""
        return self._inventory.add(_Collector).ref

    def new_filter(self, collector: Managed, spec: Any) -> Any:
        """A filter in a collector; it is walked once, so that a wrong one is refused here."""
        self.retrieve([spec])
        ref = self._inventory.add(_Collector.Filter).ref
        with self._inventory.changed:
            self._filters.setdefault(collector.moref, []).append(_Filter(ref, spec))
        return ref

    def drop_filter(self, ref: Any) -> None:
        """Take a filter away."""
        with self._inventory.changed:
            for filters in self._filters.values():
                filters[:] = [known for known in filters if known.ref != ref]
            self._inventory.remove(ref)

    def drop_collector(self, collector: Managed) -> None:
        """Take a collector away, with its filters."""
        with self._inventory.changed:
            for known in self._filters.pop(collector.moref, []):
                self._inventory.remove(known.ref)
            self._inventory.remove(collector.ref)

    def cancel_wait(self, collector: Managed) -> None:
        """Let whoever waits on a collector return."""
        with self._inventory.changed:
            self._cancelled.add(collector.moref)
            self._inventory.changed.notify_all()

    def wait(self, collector: Managed, version: str, options: Any) -> Any:
        """What changed since a version; waits for it, and answers None when nothing came."""
        since = self._version(version)
        limit_s = options.maxWaitSeconds if options is not None and options.maxWaitSeconds is not None else _WAIT_S
        end = time.monotonic() + limit_s
        with self._inventory.changed:
            era = self._era
            while True:
                updates = self._updates(collector, since)
                if updates:
                    return _Collector.UpdateSet(version=str(self._inventory.revision), filterSet=updates)
                if collector.moref in self._cancelled or era != self._era:
                    self._cancelled.discard(collector.moref)
                    raise vmodl.fault.RequestCanceled(msg="The request was canceled by a user.")
                left_s = end - time.monotonic()
                if left_s <= 0 or self._stopping:
                    return None
                self._inventory.changed.wait(left_s)

    def _version(self, version: str) -> int:
        if version and not version.isdecimal():
            raise vmodl.query.InvalidCollectorVersion(msg=f"no such version: {version}")
        return int(version or 0)

    def _updates(self, collector: Managed, since: int) -> list[Any]:
        updates = []
        for known in self._filters.get(collector.moref, []):
            objects = list(self._object_updates(known, since))
            if objects:
                updates.append(_Collector.FilterUpdate(filter=known.ref, objectSet=objects))
        return updates

    def _object_updates(self, known: _Filter, since: int) -> Iterator[Any]:
        contents = list(_Walk(self._inventory, known.spec).contents(missing_is_error=False))
        present = {moid(content.obj) for content in contents}
        for content in contents:
            moref = moid(content.obj)
            fresh = moref not in known.seen or since == 0
            changes = [
                _Collector.Change(name=found.name, op="assign", val=found.val)
                for found in content.propSet
                if fresh or self._revision(content.obj, found.name) > since
            ]
            if fresh or changes:
                yield _Collector.ObjectUpdate(kind="enter" if fresh else "modify", obj=content.obj, changeSet=changes)
        for moref in known.seen - present:
            yield _Collector.ObjectUpdate(kind="leave", obj=support.ManagedObject(moref, None))
        known.seen = present

    def _revision(self, ref: Any, path: str) -> int:
        managed = self._inventory.find(ref)
        name = _FIRST_NAME.match(path)
        return managed.revisions.get(name[0], 0) if managed is not None and name is not None else 0


class _Walk:
    """One filter specification over the inventory: from its objects, along its selections, each object once."""

    def __init__(self, inventory: Inventory, spec: Any, own: Own = _NOTHING) -> None:
        self._inventory = inventory
        self._spec = spec
        self._own = own
        self._named: dict[str, Any] = {}
        for start in spec.objectSet:
            self._learn(start.selectSet)

    def _learn(self, selections: Any) -> None:
        """Selections may name others that are defined anywhere in the specification."""
        for selection in selections or ():
            if isinstance(selection, _Collector.TraversalSpec):
                if selection.name:
                    self._named[selection.name] = selection
                self._learn(selection.selectSet)

    def contents(self, *, missing_is_error: bool = True) -> Iterator[Any]:
        """The selected objects with their properties."""
        reported: set[str] = set()
        for ref, skip in self._visited(missing_is_error=missing_is_error):
            managed = self._inventory.find(ref)
            if skip or managed is None or managed.moref in reported:
                continue
            wanted = [asked for asked in self._spec.propSet if issubclass(type(ref), _type(asked.type))]
            if wanted:
                reported.add(managed.moref)
                yield self._content(managed, wanted)

    def _content(self, managed: Managed, wanted: Sequence[Any]) -> Any:
        """One object's properties; what is not set is left out, as on the real wire."""
        content = _Collector.ObjectContent(obj=managed.ref)
        mine = [name for moref, name in self._own if moref == managed.moref]
        paths = {
            path: None
            for asked in wanted
            for path in ((*managed.properties, *mine) if asked.all else asked.pathSet or ())
        }
        for path in paths:
            value = self._own.get((managed.moref, path))
            if value is None:
                value = managed.property(path)
            if value is not None:
                content.propSet.append(vmodl.DynamicProperty(name=path, val=value))
        return content

    def _visited(self, *, missing_is_error: bool) -> Iterator[tuple[Any, bool]]:
        followed: set[tuple[str, int]] = set()
        for start in self._spec.objectSet:
            if missing_is_error:
                self._inventory.get(start.obj)
            waiting = [(start.obj, bool(start.skip), start.selectSet)]
            while waiting:
                ref, skip, selections = waiting.pop(0)
                yield ref, skip
                for selection in selections or ():
                    found = self._resolved(selection)
                    key = (moid(ref), id(found))
                    if found is None or not issubclass(type(ref), _type(found.type)) or key in followed:
                        continue
                    followed.add(key)
                    waiting += [(next_ref, bool(found.skip), found.selectSet) for next_ref in self._at(ref, found.path)]

    def _resolved(self, selection: Any) -> Any:
        if isinstance(selection, _Collector.TraversalSpec):
            return selection
        return self._named.get(selection.name)

    def _at(self, ref: Any, path: str) -> list[Any]:
        managed = self._inventory.find(ref)
        value = managed.property(path) if managed is not None else None
        if value is None:
            return []
        return list(value) if isinstance(value, list) else [value]


def _type(kind: Any) -> Any:
    return support.GetVmodlType(kind) if isinstance(kind, str) else kind
