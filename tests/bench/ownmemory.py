"""What memory this very process takes.

Not ``getrusage``: its peak begins with that of whoever forked us, and a session of benchmarks may be a large parent.
"""

from __future__ import annotations

from pathlib import Path


def memory_mib() -> dict[str, int]:
    """The peak so far, and what is resident now: of our own, and pages of files."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = {"peak": "VmHWM", "anon": "RssAnon", "file": "RssFile"}
    return {name: round(int(lines[field].split()[0]) / 1024) for name, field in names.items()}
