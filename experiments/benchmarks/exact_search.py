"""What the exact search of an index costs, in time and memory (paper, section 6.1, calls it inefficient).

    make experiment EXP=search
    make experiment EXP=search ARGS="--images 1000000"

An index of random features, made and deleted here: 3.3 GB, or 16 GB for a million images. Time grows with the images, memory
does not. "From the disk" is after the system was asked to forget the file; "from memory" is the search after that, which finds
in memory what the system has kept of it: all, where there is room. The last line is one JSON object.
"""

import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from alexnet_jax.analysis.index import About, Index, Indexed, new_index

RESULT = Path(__file__).parents[1] / "results" / "search.json"
BLOCK = 4096  # images that are made at once


@dataclass(frozen=True)
class Search:
    """Measures the search.

    Attributes:
      images: in the index.
      features: of each, as the paper's network has them.
      queries: how many are looked for at once; each number is measured.
      folder: where the index is made for the time being.
      out: where the result goes.
    """

    images: int = 200_000
    features: int = 4096
    queries: tuple[int, ...] = (1, 64)
    folder: Path = Path(tempfile.gettempdir())
    out: Path = RESULT


def make(path: Path, search: Search) -> Index:
    """An index of features like those of rectified units: half of them zero."""
    rng = np.random.default_rng(0)
    with new_index(path, About(search.images, search.features)) as writer:
        for first in range(0, search.images, BLOCK):
            rows = range(first, min(first + BLOCK, search.images))
            features = rng.standard_normal((len(rows), search.features), np.float32)
            writer.add(np.maximum(features, 0, out=features), [Indexed(f"{row}.jpg", "") for row in rows])
    return Index(path)


def forget(file: Path) -> None:
    """Asks the system not to keep the file in memory."""
    with file.open("rb") as content:
        os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def megabytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "linux" else 1024**2)


def measured(index: Index, search: Search) -> dict[str, Any]:
    rng, found = np.random.default_rng(1), dict[str, Any]()
    for count in search.queries:
        queries = np.maximum(rng.standard_normal((count, search.features), np.float32), 0)
        seconds = {}
        for where in ("from the disk", "from memory"):
            if where == "from the disk":
                forget(index.path / "features.npy")
            began = time.perf_counter()
            index.search(queries, 6)
            seconds[where] = round(time.perf_counter() - began, 2)
        found[str(count)] = seconds
        print(f"{count} queries: {seconds}", flush=True)
    return found


def main() -> None:
    search = tyro.cli(Search)
    before = megabytes()
    with tempfile.TemporaryDirectory(dir=search.folder) as folder:
        index = make(Path(folder) / "index", search)
        seconds = measured(index, search)
    result = {
        "images": search.images,
        "features": search.features,
        "gigabytes": round(4 * search.images * search.features / 1e9, 2),
        "cores": os.cpu_count(),
        "seconds": seconds,
        "megabytes": {"before": before, "at most": megabytes()},
    }
    search.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
