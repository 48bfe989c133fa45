"""Whether the operator wants an end: noted by the signal handler, looked at by threads that would wait for long.

The handler's exception reaches the main thread alone, and that one waits for the others.
"""

_wanted = False


def wanted() -> bool:
    """Whether Ctrl-C, SIGTERM or the loss of the terminal was seen."""
    return _wanted


def note() -> None:
    """It was."""
    global _wanted
    _wanted = True


def forget() -> None:
    """A new command begins."""
    global _wanted
    _wanted = False
