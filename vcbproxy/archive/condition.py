"""What drives complain of, kept: in the catalog for cartridges, in the log for all of it.

cartridge worn out, or its memory fails   ──▶ RETIRED    read, never written again
cartridge broken, or cannot be used       ──▶ DAMAGED    likewise
cartridge or drive, nobody knows which    ──▶ counted; a person decides (`vcbproxy tape media list`)
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from tape.alerts import Alert, Severity, Subject
from tape.attendant import Heard
from vcbproxy.catalog.catalog import Catalog
from vcbproxy.catalog.medium import Medium, State
from vcbproxy.errors import Error

_WORN = frozenset({7, 8, 15, 19})
_BROKEN = frozenset({4, 13, 14, 52, 53, 54})
_IN_USE = (State.SCRATCH, State.APPENDABLE, State.FULL)
_log = logging.getLogger(__name__)


def noting(catalog: Catalog) -> Callable[[Heard], None]:
    """Who is to be told what drives complain of, so that the catalog knows.

    A cartridge that the catalog does not know is nobody's: it stays unknown.
    """

    def note(heard: Heard) -> None:
        level = logging.INFO if heard.alert.severity is Severity.INFORMATION else logging.WARNING
        _log.log(level, "%s", heard)
        try:
            with catalog.transaction():
                if (known := catalog.media.get(heard.barcode)) is not None:
                    catalog.media.put(_noted(known, heard.alert))
        except Error as error:  # it is in the log; the job that goes on, or its own error, weighs more
            _log.warning("that could not be noted in the catalog: %s", error)

    return note


def _noted(known: Medium, alert: Alert) -> Medium:
    reason = f"TapeAlert {alert.number}: {alert.text}"
    if alert.number in _BROKEN and known.state in (*_IN_USE, State.RETIRED):
        return replace(known, state=State.DAMAGED, reason=reason, errors=known.errors + 1)
    if alert.number in _WORN and known.state in _IN_USE:
        return replace(known, state=State.RETIRED, reason=reason)
    if alert.subject is Subject.UNDECIDED and alert.severity is not Severity.INFORMATION:
        return replace(known, errors=known.errors + 1, reason=reason)
    return known
