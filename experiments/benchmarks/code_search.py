"""Benchmark of the time and memory of search by binary codes in an index (paper, section 6.1).

    make experiment EXP=benchmarks/code_search
    make experiment EXP=benchmarks/code_search ARGS="--stored 1000000"

The index has a million images of 4,096 features, 16 GB, and is deleted afterwards. By default, the features of 100,000 of them
are stored, which takes 1.6 GB of disk space. Those of the others are holes in a sparse file, which read as zeros; the result
contains the fraction of candidates whose features are stored. Features are rectified points around random centers, and queries
are noisy copies of stored features. The autoencoder is trained for few steps, since the time does not depend on its quality.

Each query is timed twice: "disk", after the file is dropped from the page cache, and "page_cache", immediately afterwards.
Searches run in a process of their own, whose private memory does not include pages of files. CPU time is that of all threads.
Runs on Linux. The last line of the output is one JSON object.
"""

import json
import multiprocessing
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from exact_search import drop_from_page_cache

from alexnet_jax.analysis.binary_codes import Autoencoder, nearest_codes
from alexnet_jax.analysis.code_search import CANDIDATES, build_codes, read_codes, search_by_codes
from alexnet_jax.analysis.exact_search import squared_norms
from alexnet_jax.analysis.index import Index, IndexMetadata
from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.cpus import available_cpus
from alexnet_jax.errors import check_at_least
from alexnet_jax.files import write_json
from alexnet_jax.parallel.runtime import configure_cpu

RESULT = Path(__file__).parents[1] / "results" / "code_search.json"
CHUNK = 1000
"""Number of consecutive images of which the first ones are stored."""
CENTERS = 2000


@dataclass(frozen=True)
class CodeSearch:
    """Measure the time and memory of search by binary codes.

    Attributes:
      images: number of images in the index.
      stored: number of images whose features are stored.
      features: number of features per image; the default is the width of the paper's last hidden layer.
      bits: number of bits of a code.
      candidates: numbers of images per query whose exact distances are computed; every number is timed.
      queries: number of queries.
      steps: training steps of the autoencoder.
      folder: folder for the temporary index.
      out: JSON file for the result.
    """

    images: int = 1_000_000
    stored: int = 100_000
    features: int = 4096
    bits: int = 128
    candidates: tuple[int, ...] = (500, CANDIDATES, 5000)
    queries: int = 41
    steps: int = 20
    folder: Path = Path(tempfile.gettempdir())
    out: Path = RESULT

    def __post_init__(self) -> None:
        check_at_least(self, images=CHUNK, stored=1, features=1, bits=8, candidates=1, queries=1, steps=1)

    @property
    def stored_per_chunk(self) -> int:
        """Number of images of each chunk whose features are stored."""
        return round(CHUNK * self.stored / self.images)


def sparse_index(path: Path, search: CodeSearch) -> None:
    """Create an index in which only the first images of each chunk have features."""
    rng = np.random.default_rng(0)
    path.mkdir()
    shape = search.images, search.features
    features = np.lib.format.open_memmap(path / "features.npy", "w+", np.float32, shape)
    norms = np.zeros(search.images)
    centers = rng.standard_normal((CENTERS, search.features), np.float32)
    for first in range(0, search.images, CHUNK):
        stored = slice(first, min(first + search.stored_per_chunk, search.images))
        rows = 0.7 * rng.standard_normal((stored.stop - first, search.features), np.float32)
        rows += centers[rng.integers(0, CENTERS, len(rows))]
        features[stored] = np.maximum(rows, 0, out=rows)
        norms[stored] = squared_norms(rows)
    features.flush()
    np.save(path / "squared_norms.npy", norms)
    lines = [json.dumps([f"{image}.jpg", ""]) + "\n" for image in range(search.images)]
    (path / "images.jsonl").write_text("".join(lines))
    np.save(path / "line_ends.npy", np.cumsum([len(line) for line in lines]))
    features_bytes, names_bytes = ((path / name).stat().st_size for name in ("features.npy", "images.jsonl"))
    metadata = IndexMetadata(*shape, features_bytes, names_bytes)
    (path / "index.json").write_text(json.dumps(asdict(metadata)))


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[tuple[float, float], Any]:
    """Call a function, and return the wall time and the CPU time in milliseconds, and the result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function(*arguments)
    return (1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)), result


def megabytes(kind: str) -> int:
    """Return the memory of this process in MB: "RssAnon" without pages of files, or the peak "VmHWM" including them."""
    (kilobytes,) = re.findall(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) * 1024 // 10**6


def build(path: Path, search: CodeSearch) -> dict[str, Any]:
    """Build the codes of an index, and return the time in seconds and the memory."""
    configure_cpu()
    (wall, cpu), _ = timed(build_codes, Index(path), search.bits, Autoencoder(steps=search.steps))
    return {
        "training_steps": search.steps,
        "seconds": round(wall / 1000),
        "cpu_seconds": round(cpu / 1000),
        "peak_megabytes": megabytes("VmHWM"),  # that of `getrusage` is inherited from the parent process
    }


def measure(path: Path, search: CodeSearch) -> dict[str, Any]:
    """Search by codes, and return the times in milliseconds and the memory."""
    configure_cpu()
    rng = np.random.default_rng(1)
    (open_index, _), index = timed(Index, path)
    (open_codes, _), codes = timed(read_codes, index)
    assert codes is not None
    chunks = rng.integers(0, search.images // CHUNK, search.queries)
    copied = CHUNK * chunks + rng.integers(0, search.stored_per_chunk, search.queries)
    noise = 0.7 * rng.standard_normal((search.queries, search.features), np.float32)
    queries = np.maximum(index.rows(copied) + noise, 0)
    codes.encoder(queries[:1])  # compile
    results: dict[str, Any] = {"open_index": round(open_index), "open_codes": round(open_codes)}
    for candidates in search.candidates:
        times: dict[str, list[tuple[float, float]]] = {"ranking": [], "disk": [], "page_cache": []}
        stored = []
        for query in np.split(queries, search.queries):
            ranking, nearest = timed(nearest_codes, codes.encoder(query), codes.codes, candidates)
            times["ranking"].append(ranking)
            stored.append((nearest % CHUNK < search.stored_per_chunk).mean())
            drop_from_page_cache(path / "features.npy")
            for storage in ("disk", "page_cache"):
                times[storage].append(timed(search_by_codes, index, codes, query, 6, candidates)[0])
        row: dict[str, Any] = {"candidates_stored": round(float(np.mean(stored)), 4)}
        for name, measured in times.items():
            walls, cpus = zip(*measured, strict=True)
            row[name] = {
                "median": round(statistics.median(walls), 1),
                "min": round(min(walls), 1),
                "max": round(max(walls), 1),
                "median_cpu": round(statistics.median(cpus), 1),
                "min_cpu": round(min(cpus), 1),
            }
        results[str(candidates)] = row
        print(f"{candidates} candidates: {row}", flush=True)
    results["private_megabytes"] = megabytes("RssAnon")
    return results


def in_process(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Call a function in a new process and return its result."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    search = tyro.cli(CodeSearch)
    with tempfile.TemporaryDirectory(dir=search.folder) as folder:
        path = Path(folder) / "index"
        sparse_index(path, search)
        disk = 512 * os.stat(path / "features.npy").st_blocks
        built = in_process(build, path, search)
        print(f"codes built: {built}", flush=True)
        milliseconds = in_process(measure, path, search)
    result = {
        "images": search.images,
        "stored": search.images // CHUNK * search.stored_per_chunk,
        "features": search.features,
        "gigabytes": round(4 * search.images * search.features / 1e9, 2),
        "gigabytes_on_disk": round(disk / 1e9, 2),
        "bits": search.bits,
        "cores": available_cpus(),
        "load": round(os.getloadavg()[0], 1),
        "queries": search.queries,
        "private_megabytes": milliseconds.pop("private_megabytes"),
        "milliseconds": milliseconds,
        "build": built,
    }
    print(json.dumps(result))
    write_json(search.out, result)


if __name__ == "__main__":
    with exit_on_error():
        main()
