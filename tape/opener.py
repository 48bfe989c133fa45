"""How a session with a drive is begun."""

from __future__ import annotations

from collections.abc import Callable

from tape.sequential import SequentialDrive

Opener = Callable[[], SequentialDrive]
"""Begins a session with a drive; each user of it has one of his own."""
