"""What short binary codes keep of the likeness that a trained network sees (paper, section 6.1, which only suggests them).

    make experiment EXP=codes ARGS="runs/quickstart/synthetic-seed0-…"

The features of the training images, by the last hidden layer, are compressed to 64, 128 and 256 bits: by an autoencoder that is
trained on them, by random hyperplanes and by the signs of their principal components. Validation images then look for their
neighbors by the number of bits that differ. TrainMetrics: of the exact 10 nearest by Euclidean distance, the share among the first
10, 50, 100 and 500 by bits, which is also the recall of looking at so many exactly afterwards; the share of the first 10
that are of the query's class; and the time of one query among 100,000 images. Recall and class are means over seeds, with their
standard deviations. The last line is one JSON object.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import tyro

from alexnet_jax.analysis.binary_codes import Autoencoder, Encoder, nearest_codes, principal_signs, random_hyperplanes
from alexnet_jax.analysis.exact_search import nearest
from alexnet_jax.analysis.indexing import last_hidden_layer
from alexnet_jax.console import console
from alexnet_jax.data.find import find_training_dataset
from alexnet_jax.evaluation.predictor import Predictor, SplitPredictions
from alexnet_jax.parallel.runtime import enable_compilation_cache
from alexnet_jax.weights.trained_model import load

matplotlib.use("Agg")
from matplotlib import pyplot as plt

RESULTS = Path(__file__).parent / "results"
BLOCK = 4096  # images that are compared at once
NEIGHBOURS = 10
FIRST = (10, 50, 100, 500)


@dataclass(frozen=True)
class Compare:
    """Compares binary codes with exact search.

    Attributes:
      run: run folder, or one of its checkpoints.
      data: a folder of images, a prepared folder, or a name in `data_dir`; None is what the network was trained on.
      data_dir: folder of prepared data sets.
      bits: lengths of the codes.
      seeds: how many, of the autoencoder and of the hyperplanes.
      timed: images among which a query is timed; they are made up, for time does not depend on what they show.
      out: where the result goes; a picture goes beside it.
    """

    run: tyro.conf.Positional[Path]
    data: str | None = None
    data_dir: Path = Path("data")
    bits: tuple[int, ...] = (64, 128, 256)
    seeds: int = 3
    timed: int = 100_000
    out: Path = RESULTS / "codes.json"


def blocks(features: np.ndarray) -> Iterator[np.ndarray]:
    return (features[start : start + BLOCK] for start in range(0, len(features), BLOCK))


def quality(encode: Encoder, training: SplitPredictions, queries: SplitPredictions, exact: np.ndarray) -> dict[str, float]:
    """Recall among the first so many, and the share of the nearest that are of the query's class."""
    found = nearest_codes(encode(queries.rows), encode(training.rows), max(FIRST))
    recall = {}
    for first in FIRST:
        there = (exact[:, :, None] == found[:, None, :first]).any(axis=2)
        recall[f"recall among {first}"] = float(there.mean())
    return {**recall, "same class": same_class(found[:, :NEIGHBOURS], training, queries)}


def same_class(found: np.ndarray, training: SplitPredictions, queries: SplitPredictions) -> float:
    return float((training.labels[found] == queries.labels[:, None]).mean())


def over_seeds(method: str, bits: int, of_seeds: list[dict[str, float]]) -> dict[str, Any]:
    values = {name: [of[name] for of in of_seeds] for name in of_seeds[0]}
    row = {"method": method, "bits": bits, "seeds": len(of_seeds)}
    for name, of in values.items():
        row[name] = round(float(np.mean(of)), 4)
        row[f"{name}, deviation"] = round(float(np.std(of, ddof=1)), 4) if len(of) > 1 else None
    return row


def compared(compare: Compare, training: SplitPredictions, queries: SplitPredictions, exact: np.ndarray) -> list[dict[str, Any]]:
    rows = []
    for bits in compare.bits:
        encoders: dict[str, list[Encoder]] = {
            "autoencoder": [Autoencoder(seed=seed).train(training.rows, bits) for seed in range(compare.seeds)],
            "random hyperplanes": [random_hyperplanes(training.rows, bits, seed) for seed in range(compare.seeds)],
            "principal components": [principal_signs(training.rows, bits)],
        }
        for method, of_seeds in encoders.items():
            rows.append(over_seeds(method, bits, [quality(encode, training, queries, exact) for encode in of_seeds]))
            console.print(f"{bits} bits, {method}: {rows[-1]}")
    return rows


def milliseconds(search: Callable[[], Any]) -> float:
    """The best of a few tries, after one that is not counted."""
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        search()
        seconds.append(time.perf_counter() - began)
    return round(1000 * min(seconds[1:]), 2)


def timed(compare: Compare, features: int) -> dict[str, Any]:
    """Of one query, by features and by codes."""
    rng = np.random.default_rng(0)
    rows = np.maximum(rng.standard_normal((compare.timed + 1, features), np.float32), 0)
    times: dict[str, Any] = {"images": compare.timed, "cores": os.cpu_count()}
    times["exact"] = milliseconds(lambda: nearest(rows[:1], blocks(rows[1:]), NEIGHBOURS))
    for bits in compare.bits:
        codes = rng.integers(0, 256, (compare.timed + 1, bits // 8), np.uint8)
        times[f"{bits} bits"] = milliseconds(lambda codes=codes: nearest_codes(codes[:1], codes[1:], NEIGHBOURS))
    return times


def draw(rows: list[dict[str, Any]], file: Path, *, title: str) -> None:
    """Recall over the number of images that are looked at, a panel for each number of bits."""
    lengths = sorted({row["bits"] for row in rows})
    figure, panels = plt.subplots(
        1, len(lengths), figsize=(3.4 * len(lengths), 3.2), sharey=True, squeeze=False, layout="constrained"
    )
    figure.suptitle(title)
    for axes, bits in zip(panels[0], lengths, strict=True):
        for row in (row for row in rows if row["bits"] == bits):
            axes.plot(FIRST, [100 * row[f"recall among {first}"] for first in FIRST], "o-", markersize=4, label=row["method"])
        axes.set(
            xscale="log", xticks=FIRST, xticklabels=FIRST, xlabel="images looked at, by bits", title=f"{bits} bits", ylim=(0, 102)
        )
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0, 0].set_ylabel(f"of the {NEIGHBOURS} nearest, %")
    panels[0, -1].legend(loc="lower right")
    figure.savefig(file, dpi=80)
    plt.close(figure)


def main() -> None:
    compare = tyro.cli(Compare)
    enable_compilation_cache()
    trained = load(compare.run)
    dataset = find_training_dataset(compare.data, trained.config["data"]["path"], compare.data_dir)
    predictor = Predictor(trained, layer=last_hidden_layer(trained.network))
    training, queries = (predictor.split(dataset, split) for split in ("train", dataset.evaluation_split))
    exact = nearest(queries.rows, blocks(training.rows), NEIGHBOURS).rows
    rows = compared(compare, training, queries, exact)
    result = {
        "network": trained.network.name,
        "data": dataset.path.name,
        "layer": last_hidden_layer(trained.network),
        "features": training.rows.shape[1],
        "images": len(training.rows),
        "queries": len(queries.rows),
        "neighbors": NEIGHBOURS,
        "same class, exact": round(same_class(exact, training, queries), 4),
        "codes": rows,
        "milliseconds a query": timed(compare, training.rows.shape[1]),
    }
    compare.out.write_text(json.dumps(result, indent=1) + "\n")
    draw(rows, compare.out.with_suffix(".png"), title=f"{trained.network.name} on {dataset.path.name}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
