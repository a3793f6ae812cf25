"""Amount of memory available to this process."""

import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Return the number of bytes this process can allocate: the minimum over the machine, control groups and resource limits."""
    return max(0, min([_machine_memory(), *_cgroup_memory(), *_rlimit_memory()]))


def _machine_memory() -> int:
    if (PROC / "meminfo").is_file():
        return _read_proc_bytes(PROC / "meminfo", "MemAvailable")
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # total memory: macOS has no call for the available memory


def _cgroup_memory() -> Iterator[int]:
    """Yield the available bytes of each control group (version 2) that contains this process and has a limit, as in Docker."""
    if not (PROC / "self/cgroup").is_file():
        return
    match = re.search(r"^0::/(.*)$", (PROC / "self/cgroup").read_text(), re.MULTILINE)
    if match is None:
        return
    group = CGROUPS / match[1]
    for folder in (group, *group.parents):
        limit = folder / "memory.max"
        if limit.is_file() and (text := limit.read_text().strip()) != "max":
            # The page cache counts as used memory, but its inactive part can be reclaimed.
            inactive = re.search(r"^inactive_file (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
            used = int((folder / "memory.current").read_text()) - (int(inactive[1]) if inactive else 0)
            yield int(text) - used


def _rlimit_memory() -> Iterator[int]:
    for limit, usage in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY and (PROC / "self/status").is_file():
            yield soft - _read_proc_bytes(PROC / "self/status", usage)


def _read_proc_bytes(file: Path, name: str) -> int:
    """Return the value of a field of a /proc file, in bytes."""
    match = re.search(rf"^{name}:\s+(\d+) kB$", file.read_text(), re.MULTILINE)
    assert match is not None
    return 1024 * int(match[1])
