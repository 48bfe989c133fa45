"""The SOAP wire, from the server's side, on the schema and the serialisers of pyVmomi.

Comes in: the bytes of a request. Goes out: a ``Request`` with typed arguments; and for an answer or a fault, the bytes
to send. What pyVmomi's schema does not allow does not leave this module, so every answer is a valid one.

    <Envelope><Body><Method xmlns="urn:vim25">
        <_this type="VirtualMachine">vm-20</_this>          one element a parameter, in any order;
        <name>x</name> ...                                   lists repeat their element
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.parsers.expat import ExpatError, ParserCreate
from xml.sax.saxutils import escape

from vcbproxy.lab.vcenter.release import NEWEST, Release, knows
from vcbproxy.lab.vcenter.schema import soap, support, vim, vmodl

NAMESPACE = "urn:vim25"
API_VERSION = NEWEST.api_version
_SEPARATOR = soap.NS_SEP
FETCH = "Fetch"


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a client."""

    method: str
    this: Any
    arguments: Mapping[str, Any]


class MalformedRequest(Exception):
    """Not a request that the schema knows; the text says what is wrong with it."""


class _Parser(soap.ExpatDeserializerNSHandlers):  # type: ignore[misc]  # pyVmomi's classes are untyped
    """Finds the method in the envelope; each parameter is then read by a deserialiser of its type."""

    def __init__(self, schema: str) -> None:
        super().__init__()
        self.method = ""
        self._schema = schema
        self._in_body = False
        self._types: dict[str, Any] = {}
        self._read: list[tuple[str, bool, Any]] = []
        self._expat = ParserCreate(namespace_separator=_SEPARATOR)
        self._expat.buffer_text = True

    def parse(self, data: bytes) -> Request:
        soap.SetHandlers(self._expat, soap.GetHandlers(self))
        self._expat.Parse(data, True)  # expat takes it by position only
        arguments: dict[str, Any] = {}
        for name, is_list, deserialiser in self._read:
            value = deserialiser.GetResult()
            if is_list:
                arguments.setdefault(name, []).append(value)
            else:
                arguments[name] = value
        if not self.method:
            raise MalformedRequest("no method in the envelope's body")
        return Request(self.method, arguments.pop("_this", None), arguments)

    def StartElementHandler(self, tag: str, attributes: dict[str, str]) -> None:  # noqa: N802  # pyVmomi's name
        name = tag.rpartition(_SEPARATOR)[2]
        if not self._in_body:
            self._in_body = name == "Body"
        elif not self.method:
            self.method = name
            self._types = _parameters(name, self._schema)
        else:
            self._begin(name, tag, attributes)

    def _begin(self, name: str, tag: str, attributes: dict[str, str]) -> None:
        kind = support.ManagedObject if name == "_this" else self._types.get(name)
        if kind is None:
            raise MalformedRequest(f"{self.method} has no parameter {name}")
        is_list = issubclass(kind, list)
        deserialiser = soap.SoapDeserializer(None)
        deserialiser.Deserialize(self._expat, kind.Item if is_list else kind, False, self.nsMap)
        deserialiser.StartElementHandler(tag, attributes)
        self._read.append((name, is_list, deserialiser))

    def EndElementHandler(self, tag: str) -> None:  # noqa: N802
        """The envelope's own tags end without a word."""

    def CharacterDataHandler(self, data: str) -> None:  # noqa: N802
        """White space between parameters."""


def _parameters(method: str, schema: str) -> dict[str, Any]:
    if method == FETCH:
        return {"prop": str}
    try:
        info = support.GetWsdlMethod(NAMESPACE, method).info
    except KeyError as error:
        raise MalformedRequest(f"no such method: {method}") from error
    if not knows(schema, info.version):
        raise MalformedRequest(f"no such method in this version: {method}")
    return {parameter.name: parameter.type for parameter in info.params if knows(schema, parameter.version)}


def parse(data: bytes, schema: str = NEWEST.schema) -> Request:
    """Read a request.

    Raises:
        MalformedRequest: it is not XML, or not of the schema.
    """
    try:
        return _Parser(schema).parse(data)
    except ExpatError as error:
        raise MalformedRequest(f"not XML: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedRequest(f"not of the schema: {error!r}") from error


def versions_document(release: Release) -> bytes:
    """``vimServiceVersions.xml``: what this server can speak."""
    prior = "".join(f"<version>{version}</version>" for version in release.prior)
    return (
        '<?xml version="1.0" encoding="UTF-8" ?><namespaces version="1.0"><namespace>'
        f"<name>{NAMESPACE}</name><version>{release.api_version}</version><priorVersions>{prior}</priorVersions>"
        "</namespace></namespaces>"
    ).encode()


def result_type(request: Request) -> Any:
    """The declared type of a request's answer; None when it has no value."""
    if request.method == FETCH:
        return support.GetPropertyInfo(type(request.this), request.arguments["prop"]).type
    if request.method.endswith("_Task"):
        return vim.Task
    declared = support.GetWsdlMethod(NAMESPACE, request.method).info.methodResult
    return None if declared is type(None) else declared


def answer(request: Request, value: Any, version: str) -> bytes:
    """The bytes of an answer."""
    body = ""
    declared = result_type(request)
    if value is not None and declared is not None:
        if isinstance(value, list) and not isinstance(value, support.Array):
            value = declared(value)
        body = _serialised(value, declared, version)
    return _envelope(f'<{request.method}Response xmlns="{NAMESPACE}">{body}</{request.method}Response>')


def fault(error: vmodl.MethodFault, version: str) -> bytes:
    """The bytes of a fault; one that the schema does not let pass becomes a SystemError that says so."""
    try:
        return _fault(error, version)
    except TypeError as reason:
        text = f"{type(error).__name__} cannot be sent: {reason}"
        return _fault(vmodl.fault.SystemError(reason=text, msg=text), version)


def _fault(error: Any, version: str) -> bytes:
    name = support.GetWsdlName(type(error))
    names = dict(soap.SOAP_NSMAP) | {NAMESPACE: "vim25"}
    info = support.Object(name=f"vim25:{name}Fault", type=object, version=version, flags=0)
    detail = soap.SerializeFaultDetail(error, info, version, names)
    if "xmlns:vim25" not in detail:
        opened = f"<vim25:{name}Fault"
        detail = detail.replace(opened, f'{opened} xmlns:vim25="{NAMESPACE}" xmlns="{NAMESPACE}"', 1)
    text = escape(error.msg or name)
    return _envelope(
        "<soapenv:Fault><faultcode>ServerFaultCode</faultcode>"
        f"<faultstring>{text}</faultstring><detail>{detail}</detail></soapenv:Fault>"
    )


def malformed(text: str) -> bytes:
    """The bytes of the answer to what is no request at all."""
    return fault(vmodl.fault.InvalidRequest(msg=text), NEWEST.schema)


def version_mismatch(uri: str) -> bytes:
    """The bytes of the answer to a request in a version that is not spoken here."""
    return _envelope(
        "<soapenv:Fault><faultcode>vim25:VersionMismatchFaultCode</faultcode>"
        f"<faultstring>Unsupported version URI {escape(repr(uri))}</faultstring></soapenv:Fault>"
    )


def _serialised(value: Any, declared: Any, version: str) -> str:
    info = support.Object(name="returnval", type=declared, version=version, flags=support.F_OPTIONAL)
    text: str = soap.SerializeToStr(value, info, version, dict(soap.SOAP_NSMAP) | {NAMESPACE: ""})
    # The one place where pyVmomi departs from the wire as servers speak it: govmomi refuses its name for a reference.
    return text.replace('xsi:type="ManagedObject"', 'xsi:type="ManagedObjectReference"')


def _envelope(body: str) -> bytes:
    parts = (
        soap.XML_HEADER,
        "\n",
        soap.SOAP_ENVELOPE_START,
        soap.SOAP_BODY_START,
        body,
        soap.SOAP_BODY_END,
        soap.SOAP_ENVELOPE_END,
    )
    return "".join(parts).encode()
