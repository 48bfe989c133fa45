"""Says in one line, at the end of a run, what the crash simulations went through."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Add up what each block of seeds reported, from whichever worker."""
    if (told := _told(terminalreporter, "crash simulation")) is not None:
        seeds, deaths = told
        terminalreporter.write_line(f"crash simulation: {seeds} seeds (0-{seeds - 1}), {deaths} deaths, nothing lost")
    if (told := _told(terminalreporter, "interleavings")) is not None:
        seeds, done, busy = told
        terminalreporter.write_line(
            f"interleavings: {seeds} seeds (0-{seeds - 1}), {done} processes done, {busy} found it locked, nothing lost"
        )

    if (told := _told(terminalreporter, "tape faults")) is not None:
        cases, struck, appended, recovered, full, refused = told
        terminalreporter.write_line(
            f"tape faults: {cases} cases, {struck} struck: {appended} appended to, {recovered} recovered, {full} full, "
            f"{refused} refused with a reason; every listed file whole"
        )


def _told(terminalreporter: pytest.TerminalReporter, name: str) -> list[int] | None:
    """The sums of what the blocks said under that name; pytest gives each as a tuple, or as a list from a worker."""
    told = [
        value
        for report in terminalreporter.stats.get("passed", [])
        for said, value in getattr(report, "user_properties", ())
        if said == name
    ]
    return [sum(column) for column in zip(*told, strict=True)] if told else None
