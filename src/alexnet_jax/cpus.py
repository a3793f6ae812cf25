"""Number of CPUs that a process may use."""

import os

MAX_THREADS = 4096
"""Largest number of threads or processes that an option accepts."""


def available_cpus() -> int:
    """Return the number of CPUs that this process may use, which job managers and containers limit by its affinity.

    Where the operating system has no affinity, this is the number of CPUs of the machine.

    Examples:
      >>> 1 <= available_cpus() <= (os.cpu_count() or 1)
      True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
