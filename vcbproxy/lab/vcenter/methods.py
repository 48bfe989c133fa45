"""The methods of the API: a table of names, and a small function for each.

A function takes the ``Call`` and the method's arguments by their names on the wire; what it returns is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vcbproxy.lab.vcenter.centre import Centre
from vcbproxy.lab.vcenter.inventory import Managed
from vcbproxy.lab.vcenter.properties import Own
from vcbproxy.lab.vcenter.schema import support, vim, vmodl
from vcbproxy.lab.vcenter.wire import FETCH, Request


@dataclass(slots=True)
class Call:
    """One call: where, on what, by whom. ``new_cookie`` is set by a login."""

    centre: Centre
    this: Managed
    session_key: str
    agent: str
    new_cookie: str = ""


Method = Callable[..., Any]
UNAUTHENTICATED = {"RetrieveServiceContent", "CurrentTime", "Login", "Logout", "SessionIsActive"}
FREE_PROPERTIES = {"content", "currentSession"}


def about(request: Request) -> list[Any]:
    """References of the objects that a request is about: its own, and those whose properties it asks for."""
    return [request.this, *(start.obj for spec in _filter_specs(request) for start in spec.objectSet)]


def paths(request: Request) -> list[tuple[Any, str]]:
    """The properties that a request asks for, as (type, path)."""
    asked = [(type(request.this), request.arguments["prop"])] if request.method == FETCH else []
    for spec in _filter_specs(request):
        asked += [(_type(wanted.type), path) for wanted in spec.propSet for path in wanted.pathSet or ()]
    return asked


def _type(named: Any) -> Any:
    return support.GetVmodlType(named) if isinstance(named, str) else named


def _filter_specs(request: Request) -> list[Any]:
    specs = request.arguments.get("specSet") or request.arguments.get("spec")
    listed = specs if isinstance(specs, list) else [specs]
    return [spec for spec in listed if isinstance(spec, vmodl.query.PropertyCollector.FilterSpec)]


def entity_of(centre: Centre, this: Managed) -> Managed:
    """What privileges are looked for on: the VM, for a snapshot of it."""
    return centre.inventory.get(this.properties["vm"]) if isinstance(this.ref, vim.vm.Snapshot) else this


def _retrieve_service_content(call: Call) -> Any:
    return call.centre.content


def _current_time(call: Call) -> Any:
    return call.centre.clock.now()


def _login(call: Call, userName: str, password: str, locale: str = "") -> Any:  # noqa: N803
    session = call.centre.sessions.login(userName, password, call.agent)
    call.new_cookie = session.key
    return session


def _logout(call: Call) -> None:
    call.centre.sessions.end(call.session_key)


def _session_is_active(call: Call, sessionID: str, userName: str) -> bool:  # noqa: N803
    return call.centre.sessions.find(sessionID) is not None


def _terminate_session(call: Call, sessionId: list[str]) -> None:  # noqa: N803
    for key in sessionId:
        if call.centre.sessions.find(key) is None:
            raise vim.fault.NotFound(msg=f"no such session: {key}")
        call.centre.sessions.end(key)


def _fetch(call: Call, prop: str) -> Any:
    value = _own(call).get((call.this.moref, prop))
    return call.this.property(prop) if value is None else value


def _own(call: Call) -> Own:
    """What each session sees of its own."""
    return {("SessionManager", "currentSession"): call.centre.sessions.find(call.session_key)}


def _retrieve_properties(call: Call, specSet: list[Any]) -> Any:  # noqa: N803
    return call.centre.collectors.retrieve(specSet, _own(call))


def _retrieve_properties_ex(call: Call, specSet: list[Any], options: Any) -> Any:  # noqa: N803
    return call.centre.collectors.retrieve_page(specSet, options, call.session_key, _own(call))


def _continue_retrieve(call: Call, token: str) -> Any:
    return call.centre.collectors.next_page(token, call.session_key)


def _cancel_retrieve(call: Call, token: str) -> None:
    call.centre.collectors.cancel_pages(token)


def _create_property_collector(call: Call) -> Any:
    return call.centre.collectors.new_collector()


def _destroy_property_collector(call: Call) -> None:
    call.centre.collectors.drop_collector(call.this)


def _create_filter(call: Call, spec: Any, partialUpdates: bool) -> Any:  # noqa: N803
    return call.centre.collectors.new_filter(call.this, spec)


def _destroy_property_filter(call: Call) -> None:
    call.centre.collectors.drop_filter(call.this.ref)


def _wait_for_updates_ex(call: Call, version: str = "", options: Any = None) -> Any:
    return call.centre.collectors.wait(call.this, version, options)


def _cancel_wait_for_updates(call: Call) -> None:
    call.centre.collectors.cancel_wait(call.this)


def _create_container_view(
    call: Call,
    container: Any,
    type: list[Any] | None = None,  # noqa: A002  # the wire's name
    recursive: bool = False,
) -> Any:
    inventory = call.centre.inventory
    named = tuple(support.GetVmodlType(kind) if isinstance(kind, str) else kind for kind in type or ())
    wanted = named or (vim.ManagedEntity,)
    with inventory.changed:
        top = inventory.get(container).property("childEntity") if not recursive else inventory.below(container)
        found = [ref for ref in top or () if isinstance(ref, wanted) and call.centre.permissions.sees(ref)]
        view = inventory.add(vim.view.ContainerView, container=container, type=list(named), recursive=recursive)
        inventory.set(view, view=found)
    return view.ref


def _destroy_view(call: Call) -> None:
    call.centre.inventory.remove(call.this.ref)


def _find_all(call: Call, fits: Callable[[Managed], bool]) -> list[Any]:
    return [vm.ref for vm in call.centre.inventory.all_of(vim.VirtualMachine) if fits(vm)]


def _find_all_by_uuid(call: Call, uuid: str, instanceUuid: bool = False, **_: Any) -> list[Any]:  # noqa: N803
    path = "config.instanceUuid" if instanceUuid else "config.uuid"
    return _find_all(call, lambda vm: vm.property(path) == uuid.lower())


def _find_all_by_ip(call: Call, ip: str, **_: Any) -> list[Any]:
    return _find_all(call, lambda vm: bool(vm.property("guest.ipAddress") == ip))


def _find_all_by_dns_name(call: Call, dnsName: str, **_: Any) -> list[Any]:  # noqa: N803
    return _find_all(call, lambda vm: bool(vm.property("guest.hostName") == dnsName))


def _first(find_all: Method) -> Method:
    def find(call: Call, **arguments: Any) -> Any:
        return next(iter(find_all(call, **arguments)), None)

    return find


def _find_by_inventory_path(call: Call, inventoryPath: str) -> Any:  # noqa: N803
    return call.centre.inventory.by_path(inventoryPath)


def _find_by_datastore_path(call: Call, path: str, **_: Any) -> Any:
    return next(iter(_find_all(call, lambda vm: vm.property("config.files.vmPathName") == path)), None)


def _find_child(call: Call, entity: Any, name: str) -> Any:
    inventory = call.centre.inventory
    children = inventory.get(entity).properties.get("childEntity", [])
    return next((ref for ref in children if inventory.get(ref).properties.get("name") == name), None)


def _has_privilege_on_entities(call: Call, entity: list[Any], sessionId: str, privId: list[str]) -> Any:  # noqa: N803
    if call.centre.content.about.apiType == "HostAgent":
        raise vmodl.fault.NotSupported(msg="The operation is not supported on the object.")
    # As documented: to a session that does not exist nothing is granted.
    known = call.centre.sessions.find(sessionId) is not None
    return call.centre.permissions.answer(entity, privId, known=known)


def _cancel_task(call: Call) -> None:
    raise vmodl.fault.NotSupported(msg="The operation is not supported on the object.")


METHODS: Mapping[str, Method] = {
    "RetrieveServiceContent": _retrieve_service_content,
    "CurrentTime": _current_time,
    "Login": _login,
    "Logout": _logout,
    "SessionIsActive": _session_is_active,
    "TerminateSession": _terminate_session,
    "Fetch": _fetch,
    "RetrieveProperties": _retrieve_properties,
    "RetrievePropertiesEx": _retrieve_properties_ex,
    "ContinueRetrievePropertiesEx": _continue_retrieve,
    "CancelRetrievePropertiesEx": _cancel_retrieve,
    "CreatePropertyCollector": _create_property_collector,
    "DestroyPropertyCollector": _destroy_property_collector,
    "CreateFilter": _create_filter,
    "DestroyPropertyFilter": _destroy_property_filter,
    "WaitForUpdates": _wait_for_updates_ex,
    "WaitForUpdatesEx": _wait_for_updates_ex,
    "CancelWaitForUpdates": _cancel_wait_for_updates,
    "CreateContainerView": _create_container_view,
    "DestroyView": _destroy_view,
    "FindAllByUuid": _find_all_by_uuid,
    "FindByUuid": _first(_find_all_by_uuid),
    "FindAllByIp": _find_all_by_ip,
    "FindByIp": _first(_find_all_by_ip),
    "FindAllByDnsName": _find_all_by_dns_name,
    "FindByDnsName": _first(_find_all_by_dns_name),
    "FindByInventoryPath": _find_by_inventory_path,
    "FindByDatastorePath": _find_by_datastore_path,
    "FindChild": _find_child,
    "HasPrivilegeOnEntities": _has_privilege_on_entities,
    "CancelTask": _cancel_task,
}
