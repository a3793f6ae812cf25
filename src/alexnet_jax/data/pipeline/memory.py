"""How much memory there is to take."""

import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes this process could take without harm: what the machine, its containers and its own limits all leave."""
    return max(0, min([_of_the_machine(), *_of_containers(), *_of_limits()]))


def _of_the_machine() -> int:
    if (PROC / "meminfo").is_file():
        return _kilobytes(PROC / "meminfo", "MemAvailable")
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # macOS tells no more without a helper


def _of_containers() -> Iterator[int]:
    """Of each control group above this process that has a limit (version 2; Docker and Kubernetes set them)."""
    if not (PROC / "self/cgroup").is_file():
        return
    own = re.search(r"^0::/(.*)$", (PROC / "self/cgroup").read_text(), re.MULTILINE)
    if own is None:
        return
    group = CGROUPS / own[1]
    for folder in (group, *group.parents):
        limit = folder / "memory.max"
        if limit.is_file() and (text := limit.read_text().strip()) != "max":
            # Pages of files that were read count as used, but are given back when asked for.
            files = re.search(r"^inactive_file (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
            used = int((folder / "memory.current").read_text()) - (int(files[1]) if files else 0)
            yield int(text) - used


def _of_limits() -> Iterator[int]:
    for limit, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY and (PROC / "self/status").is_file():
            yield soft - _kilobytes(PROC / "self/status", used)


def _kilobytes(file: Path, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", file.read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])
