"""The property collector: many properties of many objects in few calls, page by page.

A list is always one view and one filter; asking object by object would cost a round trip each, and vCenters with ten
thousand VMs exist. A property the manager does not hand out is absent from the row, and the reason is kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyVmomi import vim, vmodl

from vcbproxy.errors import Error, ManagerError
from vcbproxy.manager import answers
from vcbproxy.manager.faults import Trouble, reason, trouble_of
from vcbproxy.manager.wire import Wire, moref_of

_PAGE_OBJECTS = 500  # some 800 KB of a list of VMs: ten thousand are 20 round trips
_OBJECTS_MAX = 1_000_000
_LISTINGS_MAX = 3

_Collector: Any = vmodl.query.PropertyCollector  # its nested types are untyped


@dataclass(frozen=True, slots=True)
class Row:
    """Properties of one object, by path. ``missing`` says why the others are not there."""

    subject: Any
    values: dict[str, Any]
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def moref(self) -> str:
        """Whose they are."""
        return moref_of(self.subject)

    def get(self, path: str) -> Any:
        """A property that may be unset."""
        return self.values.get(path)

    def need(self, path: str) -> Any:
        """A property without which nothing can be done.

        Raises:
            ManagerError: the manager did not tell it.
        """
        value = self.values.get(path)
        if value is None:
            why = self.missing.get(path, "it is not set")
            raise ManagerError(f"{self.moref}: the manager does not tell {path}: {why}", trouble=Trouble.OTHER)
        return value


def of_one(wire: Wire, subject: Any, paths: Sequence[str]) -> Row:
    """Properties of one managed object, in one call.

    Raises:
        ManagerError: among others, with ``Trouble.GONE``, when there is no such object (any more).
    """
    spec = _Collector.FilterSpec(
        objectSet=[_Collector.ObjectSpec(obj=subject, skip=False)],
        propSet=[_Collector.PropertySpec(type=type(subject), all=False, pathSet=list(paths))],
    )
    rows = list(_pages(wire, spec))
    if len(rows) != 1:
        raise ManagerError(f"the manager tells nothing of {moref_of(subject)}", trouble=Trouble.GONE)
    return rows[0]


def of_some(wire: Wire, subjects: Sequence[Any], paths: Sequence[str]) -> list[Row]:
    """Properties of managed objects of one kind, a page a call; those that the manager passes over are not there.

    Raises:
        ManagerError: among others, with ``Trouble.GONE``, when one of them is no more.
    """
    if not subjects:
        return []
    spec = _Collector.FilterSpec(
        objectSet=[_Collector.ObjectSpec(obj=subject, skip=False) for subject in subjects],
        propSet=[_Collector.PropertySpec(type=type(subjects[0]), all=False, pathSet=list(paths))],
    )
    return list(_pages(wire, spec))


def of_all(wire: Wire, kind: Any, paths: Sequence[str]) -> list[Row]:
    """Properties of all objects of a kind in the whole inventory, whatever they are made of."""
    return _steady(lambda: _viewed(wire, {kind: paths}, _pages))


def of_kinds(wire: Wire, wanted: Mapping[Any, Sequence[str]]) -> list[Row]:
    """Properties of all objects of several kinds in the whole inventory, all in one sequence of pages, and quickly.

    Args:
        wire: the manager.
        wanted: kind of object → paths of its properties; only such as ``answers`` can read.
    """
    return _steady(lambda: _viewed(wire, wanted, _quick_pages))


def _steady(listed: Callable[[], list[Row]]) -> list[Row]:
    """A list, made anew when something in it was deleted meanwhile: no VM that goes may cost the others their night."""
    for left in reversed(range(_LISTINGS_MAX)):
        try:
            return listed()
        except ManagerError as error:
            if trouble_of(error) is not Trouble.GONE or not left:
                raise
    raise AssertionError("unreachable")


def _viewed(wire: Wire, wanted: Mapping[Any, Sequence[str]], pages: Callable[[Wire, Any], Iterator[Row]]) -> list[Row]:
    """The rows of all objects of some kinds, through a view of them."""
    manager = wire.content.viewManager
    assert manager is not None, "every manager has views"
    view = manager.CreateContainerView(wire.content.rootFolder, list(wanted), recursive=True)
    assert view is not None
    try:
        into_view = _Collector.TraversalSpec(name="view", path="view", skip=False, type=type(view))
        spec = _Collector.FilterSpec(
            objectSet=[_Collector.ObjectSpec(obj=view, skip=True, selectSet=[into_view])],
            propSet=[
                _Collector.PropertySpec(type=kind, all=False, pathSet=list(paths)) for kind, paths in wanted.items()
            ],
        )
        found = {row.moref: row for row in pages(wire, spec)}
    finally:
        with contextlib.suppress(Error):  # it ends with the session at the latest
            view.DestroyView()
    return list(found.values())


def _pages(wire: Wire, spec: Any) -> Iterator[Row]:
    """The rows of all pages, read by pyVmomi."""
    for page in _all(wire, spec, lambda body, method: wire.stub.deserialised(body, method, _Collector.RetrieveResult)):
        for content in page.objects:
            yield Row(
                subject=content.obj,
                values={prop.name: prop.val for prop in content.propSet},
                missing={prop.path: reason(prop.fault) for prop in content.missingSet},
            )


def _quick_pages(wire: Wire, spec: Any) -> Iterator[Row]:
    """The same, read by ourselves."""
    for page in _all(wire, spec, answers.page):
        for content in page.objects:
            yield Row(content.subject, content.values, content.missing)


def _all(wire: Wire, spec: Any, read: Callable[[bytes, str], Any]) -> Iterator[Any]:
    """The first page and all that follow it by their tokens.

    A token stands for more objects. Where none come, the list is not over: it is broken, and would be taken for a
    shorter one.
    """
    collector: Any = wire.content.propertyCollector

    def ask(method: str, *arguments: Any) -> Any:
        return wire.stub.ask(collector, method, arguments, lambda body: read(body, method))

    options = _Collector.RetrieveOptions(maxObjects=_PAGE_OBJECTS)
    page, count = ask("RetrievePropertiesEx", _Collector.FilterSpec.Array([spec]), options), 0
    while page is not None:
        yield page
        count += len(page.objects)
        if not page.token:
            return
        if not page.objects or count > _OBJECTS_MAX:
            raise ManagerError("the manager's list has no end; not read on", trouble=Trouble.OTHER)
        page = ask("ContinueRetrievePropertiesEx", page.token)
        if page is None:
            raise ManagerError("the manager's list breaks off: more was announced and none came", trouble=Trouble.OTHER)


def snapshot_trees(info: vim.vm.SnapshotInfo | None) -> Iterator[vim.vm.SnapshotTree]:
    """All snapshots of a VM, parents before children."""
    waiting = list(info.rootSnapshotList) if info is not None else []
    while waiting:
        tree = waiting.pop(0)
        yield tree
        waiting.extend(tree.childSnapshotList)
