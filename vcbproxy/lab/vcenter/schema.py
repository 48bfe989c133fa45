"""pyVmomi's names as the lab's vCenter uses them: the one module that imports it.

Its types are made at run time from tables, and the stubs beside them know the attributes but not the calls; so here
they are of type Any, and what reaches the datacenter is plain values.
"""

from __future__ import annotations

from typing import Any

import pyVmomi
from pyVmomi import SoapAdapter, VmomiSupport

vim: Any = getattr(pyVmomi, "vim")  # noqa: B009  # made at run time; its stub is not exported
vmodl: Any = getattr(pyVmomi, "vmodl")  # noqa: B009
soap: Any = SoapAdapter
support: Any = VmomiSupport


def moid(ref: Any) -> str:
    """The id in a reference."""
    return str(ref._GetMoId())  # noqa: SLF001  # pyVmomi's own accessor, and the only one
