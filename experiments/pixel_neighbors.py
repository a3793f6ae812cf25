"""Neighbors by features and by pixels, and codes of an autoencoder of either (paper, section 6.1).

    python experiments/pixel_neighbors.py runs/quickstart/clothing-seed0-…

The paper retrieves images by the Euclidean distance of their features in the last hidden layer. It says that the retrieved images
are generally not close in the distance of their pixels, and that an autoencoder of the features should give better codes than one
of the pixels (Krizhevsky and Hinton 2011), which makes no use of labels. It measures neither. Here test images are the queries,
and the training images are searched:

- same class: fraction of the first neighbor, and of the first ten, that have the class of the query, by Euclidean distance of
  features and of pixels, and by Hamming distance of codes of both, with the same autoencoder and the same number of bits;
- distance: Euclidean distance of the pixels between a query and its nearest image by features, as a fraction of the mean over all
  training images, and the fraction of the training images that are nearer; both are means over the queries.

Pixels are those of images of 32 x 32, as in Krizhevsky and Hinton 2011. Results: results/pixel_neighbors/DATA.json.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from binary_codes import NEIGHBORS, RESULTS, blocks, same_class

from alexnet_jax.analysis.binary_codes import Autoencoder, nearest_codes
from alexnet_jax.analysis.exact_search import nearest_neighbors
from alexnet_jax.analysis.indexing import last_hidden_layer
from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.cli.process import configure_process
from alexnet_jax.console import console
from alexnet_jax.data.find import find_training_dataset
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.records import Dataset
from alexnet_jax.errors import check_at_least
from alexnet_jax.evaluation.predictor import Predictor, SplitPredictions
from alexnet_jax.files import write_json
from alexnet_jax.weights.trained_model import load

SIDE = 32
"""Side of the images whose pixels are compared."""


@dataclass(frozen=True)
class Study:
    """Compare neighbors by features and by pixels.

    Attributes:
      run: run folder, or one of its checkpoints.
      data: a prepared data set, or a name in `data_dir`; None uses the training data of the run.
      data_dir: folder of prepared data sets.
      bits: code length, bits.
      seeds: number of seeds of the autoencoders.
      to: JSON file for the result; None uses results/pixel_neighbors/DATA.json.
    """

    run: tyro.conf.Positional[Path]
    data: str | None = None
    data_dir: Path = Path("data")
    bits: int = 256
    seeds: int = 3
    to: Path | None = None

    def __post_init__(self) -> None:
        check_at_least(self, bits=8, seeds=1)


def pixels_of(dataset: Dataset, split: str) -> np.ndarray:
    """Return the pixels of all images of a split, [images, 3 SIDE²], float32."""
    images = DecodedImages(dataset, split, SIDE)
    # `decode` may return the same array again, so each image is copied.
    return np.stack([images.decode(images.record(index)).flatten() for index in range(len(images))]).astype(np.float32)


def shares(neighbors: np.ndarray, training: SplitPredictions, queries: SplitPredictions) -> dict[str, float]:
    """Return the fractions of the first neighbor, and of the first `NEIGHBORS`, that have the class of the query."""
    return {
        "first": same_class(neighbors[:, :1], training, queries),
        f"first {NEIGHBORS}": same_class(neighbors[:, :NEIGHBORS], training, queries),
    }


def nearness(neighbors: np.ndarray, training: np.ndarray, queries: np.ndarray) -> dict[str, float]:
    """Return the mean relative distance of the first neighbors, and the mean fraction of training images that are nearer.

    Args:
      neighbors: indices of the neighbors of each query, nearest first.
      training: pixels of the training images.
      queries: pixels of the queries.
    """
    relative, nearer = [], []
    for query, index in zip(queries, neighbors[:, 0], strict=True):
        distances = np.linalg.norm(training - query, axis=1)
        relative.append(distances[index] / distances.mean())
        nearer.append((distances < distances[index]).mean())
    return {"distance by mean distance": float(np.mean(relative)), "fraction nearer": float(np.mean(nearer))}


def mean_of(metrics: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over the seeds."""
    return {name: float(np.mean([seed[name] for seed in metrics])) for name in metrics[0]}


def compare(study: Study) -> dict[str, Any]:
    """Return the result of the study."""
    model = load(study.run)
    dataset = find_training_dataset(study.data, model.config.data.path, study.data_dir)
    predictor = Predictor(model, layer=last_hidden_layer(model.network))
    training, queries = (predictor.predict_split(dataset, split) for split in ("train", "test"))
    searched = {"features": (training.outputs, queries.outputs)}
    searched["pixels"] = (pixels_of(dataset, "train"), pixels_of(dataset, "test"))
    rows = {}
    for name, (rows_of_training, rows_of_queries) in searched.items():
        exact = nearest_neighbors(rows_of_queries, blocks(rows_of_training), NEIGHBORS).indices
        rows[name] = shares(exact, training, queries) | nearness(exact, *searched["pixels"])
        by_seed = []
        for seed in range(study.seeds):
            encode = Autoencoder(seed=seed).train(rows_of_training, study.bits)
            by_code = nearest_codes(encode(rows_of_queries), encode(rows_of_training), NEIGHBORS)
            by_seed.append(shares(by_code, training, queries) | nearness(by_code, *searched["pixels"]))
        rows[f"codes of {name}"] = mean_of(by_seed)
        for method in (name, f"codes of {name}"):
            console.print(f"{method}: {rows[method]}")
    frequency = np.bincount(training.labels, minlength=len(model.classes)) / len(training.labels)
    return {
        "network": model.network.name,
        "layer": last_hidden_layer(model.network),
        "data": dataset.path.name,
        "classes": len(model.classes),
        "images": len(training.labels),
        "queries": len(queries.labels),
        "bits": study.bits,
        "seeds": study.seeds,
        "neighbors": NEIGHBORS,
        "same class, random images": float(frequency[queries.labels].mean()),
        "methods": rows,
    }


def main() -> None:
    study = tyro.cli(Study)
    configure_process()
    result = compare(study)
    print(json.dumps(result))
    write_json(study.to or RESULTS / "pixel_neighbors" / f"{result['data']}.json", result)


if __name__ == "__main__":
    with exit_on_error():
        main()
