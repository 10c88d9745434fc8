"""Run a stage as DVC would, and append what its process took to a file: ``... FILE stages.X ARGUMENTS``.

Linux counts in a process's peak what its parent held when it started it, so this one imports nothing large.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

KIB = 1024
"""Linux counts the peak of memory in these."""


def main() -> None:
    """Run the stage; ends with its exit code."""
    record, *stage = sys.argv[1:]
    start = time.perf_counter()
    process = subprocess.Popen(["python", "-m", *stage])
    while True:
        try:
            _, status, usage = os.wait4(process.pid, 0)
            break
        except KeyboardInterrupt:
            continue  # The terminal interrupts the stage, too: its end is waited for.
    code = process.returncode = os.waitstatus_to_exitcode(status)
    row = {
        "stage": " ".join(stage).partition(" --params")[0].removeprefix("stages."),
        "exit_code": code,
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_bytes": usage.ru_maxrss * KIB,
    }
    with Path(record).open("a") as file:
        file.write(json.dumps(row) + "\n")
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
