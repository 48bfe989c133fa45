"""What LTFS volumes say of the program that wrote them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tape.ltfs.format import Maker


def maker() -> Maker:
    """Us, on this host."""
    import socket
    from importlib import metadata

    from tape.ltfs.format import Maker

    return Maker("VCBPROXY", "vcbproxy", metadata.version("vcbproxy"), socket.gethostname())
