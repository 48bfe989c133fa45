"""Sizes on the command line."""

from __future__ import annotations

from typing import Any

import click

from vcbproxy import errors, units


class Size(click.ParamType[int]):
    """A size on the command line: ``4096``, ``64K``, ``1.5GiB``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it, or say what a size looks like."""
        try:
            return value if isinstance(value, int) else units.parse_size(value)
        except errors.UsageError as error:
            self.fail(str(error), param, ctx)
