"""Quality and speed of image search by short binary codes, which section 6.1 of the paper suggests but does not evaluate.

    make experiment EXP=binary_codes ARGS="runs/quickstart/synthetic-seed0-…"

The features of the training images, from the last hidden layer, are compressed to 64, 128 and 256 bits by three methods: an
autoencoder trained on them, random hyperplanes, and the signs of their principal components. Validation images are the queries,
and neighbors are ranked by Hamming distance. Metrics:

- recall: the fraction of the exact 10 nearest neighbors by Euclidean distance among the first 10, 50, 100 and 500 by Hamming
  distance, which is also the recall of re-ranking that many candidates exactly;
- same class: the fraction of the first 10 that have the class of the query;
- time: milliseconds per query among 100,000 images.

Recall and same class are means over seeds, with standard deviations. The last line of the output is one JSON object.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import tyro
from hyperplane_codes import principal_component_signs, random_hyperplanes

from alexnet_jax.analysis.binary_codes import Autoencoder, Encoder, nearest_codes
from alexnet_jax.analysis.exact_search import nearest_neighbors
from alexnet_jax.analysis.indexing import last_hidden_layer
from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.cli.process import configure_process
from alexnet_jax.console import console
from alexnet_jax.cpus import available_cpus
from alexnet_jax.data.find import find_training_dataset
from alexnet_jax.errors import check_at_least
from alexnet_jax.evaluation.predictor import Predictor, SplitPredictions
from alexnet_jax.files import write_json
from alexnet_jax.weights.trained_model import load

matplotlib.use("Agg")
from matplotlib import pyplot as plt

RESULTS = Path(__file__).parent / "results"
BLOCK = 4096
"""Number of images per block of the exact search."""
NEIGHBORS = 10
CANDIDATES = (10, 50, 100, 500)


@dataclass(frozen=True)
class Compare:
    """Compare search by binary codes with exact search.

    Attributes:
      run: run folder, or one of its checkpoints.
      data: a folder of images, a prepared data set, or a name in `data_dir`; None uses the training data of the run.
      data_dir: folder of prepared data sets.
      bits: code lengths, bits.
      seeds: number of seeds for the autoencoder and the hyperplanes.
      timed: number of images in the timed search; their features are random, since the time does not depend on them.
      out: JSON file for the result; the figure is written beside it.
    """

    run: tyro.conf.Positional[Path]
    data: str | None = None
    data_dir: Path = Path("data")
    bits: tuple[int, ...] = (64, 128, 256)
    seeds: int = 3
    timed: int = 100_000
    out: Path = RESULTS / "codes.json"

    def __post_init__(self) -> None:
        check_at_least(self, bits=8, seeds=1, timed=1)


def blocks(features: np.ndarray) -> Iterator[np.ndarray]:
    """Split features into blocks of `BLOCK` images."""
    return (features[start : start + BLOCK] for start in range(0, len(features), BLOCK))


def quality(encode: Encoder, training: SplitPredictions, queries: SplitPredictions, exact: np.ndarray) -> dict[str, float]:
    """Return the recall among the nearest codes, and the fraction of the `NEIGHBORS` nearest that have the class of the query.

    Args:
      encode: encoder of features to codes.
      training: features and labels of the images to search.
      queries: features and labels of the queries.
      exact: indices of the exact nearest neighbors of each query, [queries, neighbors].
    """
    nearest_by_code = nearest_codes(encode(queries.outputs), encode(training.outputs), max(CANDIDATES))
    recall = {}
    for count in CANDIDATES:
        hits = (exact[:, :, None] == nearest_by_code[:, None, :count]).any(axis=2)
        recall[f"recall among {count}"] = float(hits.mean())
    return {**recall, "same class": same_class(nearest_by_code[:, :NEIGHBORS], training, queries)}


def same_class(neighbors: np.ndarray, training: SplitPredictions, queries: SplitPredictions) -> float:
    """Return the fraction of neighbors, indices [queries, neighbors], that have the class of their query."""
    return float((training.labels[neighbors] == queries.labels[:, None]).mean())


def aggregate_seeds(method: str, bits: int, metrics: list[dict[str, float]]) -> dict[str, Any]:
    """Return the mean and standard deviation of each metric over the seeds."""
    values_by_name = {name: [seed[name] for seed in metrics] for name in metrics[0]}
    row = {"method": method, "bits": bits, "seeds": len(metrics)}
    for name, values in values_by_name.items():
        row[name] = round(float(np.mean(values)), 4)
        row[f"{name}, deviation"] = round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None
    return row


def compare_codes(
    compare: Compare, training: SplitPredictions, queries: SplitPredictions, exact: np.ndarray
) -> list[dict[str, Any]]:
    """Return the quality of each method at each code length; see `quality` for the arguments."""
    rows = []
    for bits in compare.bits:
        encoders: dict[str, list[Encoder]] = {
            "autoencoder": [Autoencoder(seed=seed).train(training.outputs, bits) for seed in range(compare.seeds)],
            "random hyperplanes": [random_hyperplanes(training.outputs, bits, seed) for seed in range(compare.seeds)],
            "principal components": [principal_component_signs(training.outputs, bits)],
        }
        for method, seeds in encoders.items():
            rows.append(aggregate_seeds(method, bits, [quality(encode, training, queries, exact) for encode in seeds]))
            console.print(f"{bits} bits, {method}: {rows[-1]}")
    return rows


def milliseconds(search: Callable[[], Any]) -> float:
    """Return the minimum time of five calls, in milliseconds, after one warm-up call."""
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        search()
        seconds.append(time.perf_counter() - start)
    return round(1000 * min(seconds[1:]), 2)


def time_queries(compare: Compare, features: int) -> dict[str, Any]:
    """Time one query by exact search and by codes of each length, in milliseconds."""
    rng = np.random.default_rng(0)
    rows = np.maximum(rng.standard_normal((compare.timed + 1, features), np.float32), 0)
    times: dict[str, Any] = {"images": compare.timed, "cores": available_cpus()}
    times["exact"] = milliseconds(lambda: nearest_neighbors(rows[:1], blocks(rows[1:]), NEIGHBORS))
    for bits in compare.bits:
        codes = rng.integers(0, 256, (compare.timed + 1, bits // 8), np.uint8)
        times[f"{bits} bits"] = milliseconds(lambda codes=codes: nearest_codes(codes[:1], codes[1:], NEIGHBORS))
    return times


def draw(rows: list[dict[str, Any]], file: Path, *, title: str) -> None:
    """Plot recall over the number of candidates, one panel per code length."""
    lengths = sorted({row["bits"] for row in rows})
    figure, panels = plt.subplots(
        1, len(lengths), figsize=(3.4 * len(lengths), 3.2), sharey=True, squeeze=False, layout="constrained"
    )
    figure.suptitle(title)
    for axes, bits in zip(panels[0], lengths, strict=True):
        for row in (row for row in rows if row["bits"] == bits):
            recall = [100 * row[f"recall among {count}"] for count in CANDIDATES]
            axes.plot(CANDIDATES, recall, "o-", markersize=4, label=row["method"])
        axes.set(
            xscale="log",
            xticks=CANDIDATES,
            xticklabels=CANDIDATES,
            xlabel="candidates by Hamming distance",
            title=f"{bits} bits",
            ylim=(0, 102),
        )
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0, 0].set_ylabel(f"recall of the {NEIGHBORS} nearest, %")
    panels[0, -1].legend(loc="lower right")
    figure.savefig(file, dpi=80)
    plt.close(figure)


def main() -> None:
    compare = tyro.cli(Compare)
    configure_process()
    model = load(compare.run)
    dataset = find_training_dataset(compare.data, model.config.data.path, compare.data_dir)
    predictor = Predictor(model, layer=last_hidden_layer(model.network))
    training, queries = (predictor.predict_split(dataset, split) for split in ("train", dataset.evaluation_split))
    exact = nearest_neighbors(queries.outputs, blocks(training.outputs), NEIGHBORS).indices
    rows = compare_codes(compare, training, queries, exact)
    result = {
        "network": model.network.name,
        "data": dataset.path.name,
        "layer": last_hidden_layer(model.network),
        "features": training.outputs.shape[1],
        "images": len(training.outputs),
        "queries": len(queries.outputs),
        "neighbors": NEIGHBORS,
        "same class, exact": round(same_class(exact, training, queries), 4),
        "codes": rows,
        "milliseconds a query": time_queries(compare, training.outputs.shape[1]),
    }
    write_json(compare.out, result)
    draw(rows, compare.out.with_suffix(".png"), title=f"{model.network.name} on {dataset.path.name}")
    print(json.dumps(result))


if __name__ == "__main__":
    with exit_on_error():
        main()
