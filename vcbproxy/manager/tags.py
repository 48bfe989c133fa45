"""Tags: which VM has which. Asked for only when a selector looks at tags: they are not in the API that all else uses.

    GET  tagging/tag                 ids of all tags that this user may read
    GET  tagging/tag/{id}            its name and its category, one call a tag (there is no public call for many)
    GET  tagging/category/{id}       the category's name
    POST tagging/tag-association?action=list-attached-objects-on-tags    what they are attached to, many tags a call

The calls grow with the tags, never with the VMs. A tag this user may not read is not there for us: vCenter says
nothing of it, and a selector that names it means no VM, which is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vcbproxy.errors import ManagerError, UsageError
from vcbproxy.manager.faults import Trouble
from vcbproxy.manager.rest import NotThere, RestSession
from vcbproxy.manager.session import Session
from vcbproxy.manager.vm import Tag

_TAGS_MAX = 100_000
_TAGS_A_CALL = 100
_VM_TYPE = "VirtualMachine"


def of_vms(session: Session) -> Mapping[str, frozenset[Tag]]:
    """The tags of every VM that has some, by its moref.

    Raises:
        UsageError: the manager is a single host: only vCenter has tags.
        CredentialsError: the login that was good for all else is refused here.
        ManagerError: vCenter cannot be asked, or what it says makes no sense.
    """
    if not session.about.is_vcenter:
        raise UsageError(f"{session} is an ESXi host, and tags are vCenter's: select by name: or datastore: instead")
    return session.read(lambda _: _collected(session))


def _collected(session: Session) -> Mapping[str, frozenset[Tag]]:
    found: dict[str, set[Tag]] = {}
    with RestSession(session.endpoint, session.credentials) as rest:
        known = _tags(rest)
        for some in _batches(list(known)):
            answer = rest.ask("tagging/tag-association", "list-attached-objects-on-tags", {"tag_ids": some})
            for entry in _list(answer):
                tag = known.get(_text(entry, "tag_id"))
                if tag is None:
                    raise _nonsense(f"tag {_text(entry, 'tag_id')} was not asked for")
                for moref in _vms(_list(_field(entry, "object_ids")), session.instance_uuid):
                    found.setdefault(moref, set()).add(tag)
    return {moref: frozenset(tags) for moref, tags in found.items()}


def _tags(rest: RestSession) -> dict[str, Tag]:
    """All tags by their ids."""
    ids = _list(rest.get("tagging/tag"))
    if len(ids) > _TAGS_MAX:
        raise _nonsense(f"{len(ids)} tags")
    categories: dict[str, str] = {}
    found: dict[str, Tag] = {}
    for identifier in ids:
        if not isinstance(identifier, str) or not identifier:
            raise _nonsense(f"{identifier!r} for the id of a tag")
        try:
            tag = rest.get("tagging/tag", identifier)
            category = _text(tag, "category_id")
            if category not in categories:
                categories[category] = _text(rest.get("tagging/category", category), "name")
        except NotThere:  # deleted since the list was made
            continue
        found[identifier] = Tag(categories[category], _text(tag, "name"))
    return found


def _vms(objects: Iterable[Any], instance_uuid: str | None) -> Iterable[str]:
    """Morefs of the VMs among objects; of linked vCenters', whose ids name their server, only our own."""
    for found in objects:
        moref, _, server = _text(found, "id").partition(":")
        if _text(found, "type") == _VM_TYPE and server.lower() in ("", (instance_uuid or "").lower()):
            yield moref


def _batches(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[at : at + _TAGS_A_CALL] for at in range(0, len(ids), _TAGS_A_CALL))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _nonsense(f"{type(value).__name__} where a list should be")
    return value


def _field(value: Any, key: str) -> Any:
    if not isinstance(value, dict) or key not in value:
        raise _nonsense(f"{key} is missing")
    return value[key]


def _text(value: Any, key: str) -> str:
    found = _field(value, key)
    if not isinstance(found, str) or not found:
        raise _nonsense(f"{key} is {found!r}")
    return found


def _nonsense(what: str) -> ManagerError:
    return ManagerError(f"what vCenter says of its tags makes no sense: {what}", trouble=Trouble.OTHER)
