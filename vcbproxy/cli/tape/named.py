"""Cartridges by what people call them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vcbproxy.errors import UsageError

if TYPE_CHECKING:
    from vcbproxy.catalog.catalog import Catalog
    from vcbproxy.catalog.medium import Medium

WAIT_S = 600.0  # for a drive that somebody else uses
library_option = click.option(
    "--library", "library_name", metavar="NAME", help="Which library; the only one configured."
)


def known(catalog: Catalog, barcode: str) -> Medium:
    """The cartridge with a label.

    Raises:
        UsageError: the catalog knows none.
    """
    return must_be(catalog.media.get(barcode), barcode)


def must_be(found: Medium | None, barcode: str) -> Medium:
    """What the catalog found under a label.

    Raises:
        UsageError: nothing.
    """
    if found is None:
        raise UsageError(f"the catalog knows no cartridge {barcode}; see `vcbproxy tape inventory`")
    return found


def all_named(catalog: Catalog, names: tuple[str, ...]) -> list[Medium]:
    """Cartridges by their labels, or by that of their media set; each once.

    Raises:
        UsageError: the catalog knows neither.
    """
    found: dict[str, Medium] = {}
    every = catalog.media.listed()
    for name in names:
        of_set = [medium for medium in every if medium.media_set == name]
        for medium in of_set or [known(catalog, name)]:
            found[medium.barcode] = medium
    return list(found.values())
