"""Releases of the manager: which schemas each of them speaks, and how it calls itself.

A client asks for ``vimServiceVersions.xml``, chooses a version that both know, and names it in each request's
SOAPAction. What the chosen schema does not know yet (methods, parameters, properties, types) does not exist for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vcbproxy.lab.vcenter.schema import support, vmodl

_ACTION = re.compile(r"urn:vim25/([\w.]+)")
_STEP = re.compile(r"([A-Za-z]\w*)|\[[^\]]+\]")


class VersionMismatch(Exception):
    """The client names a version that this release does not speak; the argument is its URI."""


@dataclass(frozen=True, slots=True)
class Release:
    """One release.

    Attributes:
        version: as ``about.version`` has it.
        api_version: the newest schema's name on the wire, and in ``about.apiVersion``.
        prior: the others that it speaks, newest first.
    """

    version: str
    api_version: str
    prior: tuple[str, ...]

    @property
    def schema(self) -> str:
        """The newest schema's name at pyVmomi."""
        return _SCHEMAS[self.api_version]

    def schema_of(self, soap_action: str) -> str:
        """The schema that a client speaks, from its SOAPAction; the newest for one that does not say.

        Raises:
            VersionMismatch: it is none of those spoken here.
        """
        match = _ACTION.search(soap_action)
        if match is None:
            return self.schema
        if match[1] not in (self.api_version, *self.prior):
            raise VersionMismatch(f"urn:vim25/{match[1]}")
        return _SCHEMAS[match[1]]


_SCHEMAS: Mapping[str, str] = {
    support.versionIdMap[name]: name for name in reversed(support.GetServiceVersions("vim25")) if name[:4] == "vim."
}
_TO_5_5 = ("6.0", "5.5", "5.1", "5.0", "4.1", "4.0", "2.5u2server", "2.5u2", "2.5", "2.0")
_TO_6_5 = ("6.7.2", "6.7.1", "6.7", "6.5", *_TO_5_5)
_TO_6_7 = ("7.0.2.1", "7.0.2.0", "7.0.1.1", "7.0.1.0", "7.0.0.2", "7.0.0.0", "6.9.1", "6.8.7", "6.7.3", *_TO_6_5)
_TO_7_0 = ("8.0.2.0", "8.0.1.0", "8.0.0.2", "8.0.0.1", "8.0.0.0", "7.0.3.2", "7.0.3.1", "7.0.3.0", *_TO_6_7)

RELEASES: Mapping[str, Release] = {
    "6.5": Release("6.5.0", "6.5", _TO_5_5),
    "6.7": Release("6.7.0", "6.7.3", _TO_6_5),
    "7.0": Release("7.0.3", "7.0.3.0", _TO_6_7),
    "8.0": Release("8.0.3", "8.0.3.0", _TO_7_0),
}
NEWEST = RELEASES["8.0"]


def knows(schema: str, since: str) -> bool:
    """Whether a schema has what came with another one."""
    return bool(support.IsChildVersion(schema, since))


def require_path(kind: Any, path: str, schema: str) -> None:
    """Refuse a property path that a schema does not know yet; what no schema knows is left to others.

    Raises:
        vmodl.query.InvalidProperty: it came with a later one.
    """
    held = kind
    for match in _STEP.finditer(path):
        if match[1] is None:
            continue
        try:
            found = support.GetPropertyInfo(held, match[1])
        except (AttributeError, KeyError, TypeError):
            return
        if not knows(schema, found.version):
            raise vmodl.query.InvalidProperty(name=path, msg=f"no such property: {path}")
        held = getattr(found.type, "Item", found.type)
