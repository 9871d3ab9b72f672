"""Start a command, wait for it, and write what it took to a file: `launch.py FILE COMMAND...`

Run as a small process of its own, because the peak memory that the kernel reports of a process
includes that of the one it was forked from: measured from a large process, every child looks large.
"""

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    report, *command = sys.argv[1:]
    start = time.perf_counter()
    process = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - start
    # Kilobytes, but bytes on macOS: see getrusage(2) of each.
    unit = 1 if sys.platform == "darwin" else 1024
    facts = {
        "returncode": os.waitstatus_to_exitcode(status),
        "seconds": seconds,
        "peak_bytes": usage.ru_maxrss * unit,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
    }
    Path(report).write_text(json.dumps(facts), encoding="utf-8")


main()
