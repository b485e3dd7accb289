"""Run a command, and print last the most memory that it held.

usage: python -m benchmarks.peak_memory COMMAND...

The kernel counts a process's peak from the one that it was forked from: hence this small one in between.
"""

import resource
import subprocess
import sys

UNIT = 1 if sys.platform == "darwin" else 1024  # bytes, of ru_maxrss


def main() -> None:
    done = subprocess.run(sys.argv[1:], check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * UNIT
    print(f"peak memory: {peak / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
