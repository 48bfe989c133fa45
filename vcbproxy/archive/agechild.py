"""The process that encrypts or decrypts: standard input to standard output, in the age format.

A process of its own, because pyrage holds Python's lock while it works: in ours, everything else would stand still. Its
orders come through a pipe, never by arguments, which everybody on the machine can read:

    {"encrypt": ["age1…", …]}     or     {"decrypt": ["AGE-SECRET-KEY-1…", …]}
"""

from __future__ import annotations

import json
import os
import sys

NO_MATCH = 3
DAMAGED = 4
WRONG_KEY = 5


def main(orders_fd: int) -> int:
    """Do what is ordered; the exit code says what went wrong."""
    import pyrage

    from vcbproxy.archive.agekeys import identity, recipient

    with os.fdopen(orders_fd, "rb") as pipe:
        orders = json.load(pipe)
    try:
        if "encrypt" in orders:
            pyrage.encrypt_file("/dev/stdin", "/dev/stdout", [recipient(key) for key in orders["encrypt"]])
        else:
            pyrage.decrypt_file("/dev/stdin", "/dev/stdout", [identity(key) for key in orders["decrypt"]])
    except (pyrage.RecipientError, pyrage.IdentityError) as error:
        return _said(error, WRONG_KEY)
    except pyrage.DecryptError as error:
        return _said(error, NO_MATCH if "matching" in str(error) else DAMAGED)
    except (pyrage.EncryptError, OSError) as error:
        return _said(error, DAMAGED)
    return 0


def _said(error: Exception, code: int) -> int:
    print(error, file=sys.stderr)  # noqa: T201  # its parent reads it
    return code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
