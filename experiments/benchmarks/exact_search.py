"""Benchmark of the time and memory of exact search in an index, which section 6.1 of the paper calls inefficient.

    make experiment EXP=benchmarks/exact_search
    make experiment EXP=benchmarks/exact_search ARGS="--images 1000000"

The index holds random features and is deleted afterwards; it takes 3.3 GB of disk space, or 16 GB for a million images. Time
grows linearly with the number of images; memory is constant. Each search is timed twice: "disk", after the file is dropped from
the page cache, and "page_cache", immediately afterwards, when the operating system has cached as much of the file as fits. CPU
time is that of all threads. For comparison, a pass over the file, read into a buffer, and one over a memory map of it are timed.
The last line of the output is one JSON object.
"""

import json
import os
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from alexnet_jax.analysis.index import Index, IndexedImage, IndexMetadata
from alexnet_jax.analysis.index_writer import create_index
from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.cpus import available_cpus
from alexnet_jax.errors import check_at_least
from alexnet_jax.files import write_json

RESULT = Path(__file__).parents[1] / "results" / "search.json"
BLOCK = 4096
"""Number of images generated at a time."""


@dataclass(frozen=True)
class Search:
    """Measure the time and memory of exact search.

    Attributes:
      images: number of images in the index.
      features: number of features per image; the default is the width of the paper's last hidden layer.
      queries: numbers of queries per search; every number is timed.
      folder: folder for the temporary index.
      out: JSON file for the result.
    """

    images: int = 200_000
    features: int = 4096
    queries: tuple[int, ...] = (1, 64)
    folder: Path = Path(tempfile.gettempdir())
    out: Path = RESULT

    def __post_init__(self) -> None:
        check_at_least(self, images=1, features=1, queries=1)


def random_index(path: Path, search: Search) -> Index:
    """Create an index of random features, half of which are zero, as after a ReLU."""
    rng = np.random.default_rng(0)
    with create_index(path, IndexMetadata(search.images, search.features)) as writer:
        for first in range(0, search.images, BLOCK):
            rows = range(first, min(first + BLOCK, search.images))
            features = rng.standard_normal((len(rows), search.features), np.float32)
            writer.add(np.maximum(features, 0, out=features), [IndexedImage(f"{row}.jpg", "") for row in rows])
    return Index(path)


def drop_from_page_cache(file: Path) -> None:
    """Drop a file from the page cache."""
    with file.open("rb") as content:
        os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def peak_megabytes() -> int:
    """Return the peak resident memory of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # kB on Linux


def measure(index: Index, search: Search) -> dict[str, Any]:
    """Return the time of a search in seconds, by number of queries and by storage, "disk" or "page_cache"."""
    rng, times = np.random.default_rng(1), dict[str, Any]()
    for count in search.queries:
        queries = np.maximum(rng.standard_normal((count, search.features), np.float32), 0)
        seconds = {}
        for storage in ("disk", "page_cache"):
            if storage == "disk":
                drop_from_page_cache(index.path / "features.npy")
            start, cpu = time.perf_counter(), time.process_time()
            index.search(queries, 6)
            seconds[storage] = round(time.perf_counter() - start, 2)
            seconds[f"{storage}_cpu"] = round(time.process_time() - cpu, 2)
        times[str(count)] = seconds
        print(f"{count} queries: {seconds}", flush=True)
    return times


def measure_passes(file: Path) -> dict[str, float]:
    """Return the time in seconds of one pass over a file that is in the page cache, and of one from disk."""
    buffer = np.empty(1 << 22, np.float32)

    def read() -> None:
        with file.open("rb", buffering=0) as content:
            while content.readinto(buffer.data):
                pass

    def read_map() -> None:
        np.load(file, mmap_mode="r").max()

    seconds = {}
    for name, one_pass in {"page_cache": read, "page_cache, memory map": read_map, "disk": read}.items():
        if name == "disk":
            drop_from_page_cache(file)
        start = time.perf_counter()
        one_pass()
        seconds[name] = round(time.perf_counter() - start, 2)
    print(f"one pass: {seconds}", flush=True)
    return seconds


def main() -> None:
    search = tyro.cli(Search)
    before = peak_megabytes()
    with tempfile.TemporaryDirectory(dir=search.folder) as folder:
        index = random_index(Path(folder) / "index", search)
        seconds = measure(index, search)
        peak = peak_megabytes()
        passes = measure_passes(index.path / "features.npy")
    result = {
        "images": search.images,
        "features": search.features,
        "gigabytes": round(4 * search.images * search.features / 1e9, 2),
        "cores": available_cpus(),
        "load": round(os.getloadavg()[0], 1),
        "seconds": seconds,
        "one_pass_seconds": passes,
        "megabytes": {"before": before, "peak": peak},
    }
    print(json.dumps(result))
    write_json(search.out, result)


if __name__ == "__main__":
    with exit_on_error():
        main()
