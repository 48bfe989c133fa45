"""Runs one program and prints what it took, as JSON. A small process of its own, run with ``python -I -S``.

The kernel counts towards a program's peak memory that of whoever forked it; a test session is a large parent, this a
small one.
"""

import json
import os
import subprocess
import sys
import time

started = time.monotonic()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)  # we have waited; Popen must not
taken = {
    "wall_s": time.monotonic() - started,
    "cpu_s": usage.ru_utime + usage.ru_stime,
    "rss_bytes": usage.ru_maxrss * 1024,
}
print(json.dumps(taken))
sys.exit(process.returncode)
