"""Accuracy of a linear classifier on the synthetic images, on which the quickstart config exceeds 90%.

    make experiment EXP=linear_baseline

The classifier is ridge regression on 32x32 and 64x64 pixels. Its penalty is chosen on the validation images themselves, so its
accuracy is an overestimate.
"""

import json
from pathlib import Path

import numpy as np
import tyro

from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.data.find import find_dataset
from alexnet_jax.data.pipeline.batches import evaluation_batches
from alexnet_jax.data.records import Dataset
from alexnet_jax.data.sources import synthetic
from alexnet_jax.files import write_json

RESULT = Path(__file__).parent / "results" / "linear_baseline.json"


def pixels(dataset: Dataset, split: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images downscaled to `side` pixels, [images, features], and one-hot labels, [images, classes]."""
    batches = list(evaluation_batches(dataset, split, image_size=64, input_size=64, batch_size=500))
    images = np.concatenate([batch.image for batch in batches]).astype(np.float32)
    images = images.reshape(-1, side, 64 // side, side, 64 // side, 3).mean((2, 4)).reshape(len(images), -1)
    labels = np.concatenate([batch.label for batch in batches])
    return images / 255 - 0.5, np.eye(len(dataset.manifest.classes), dtype=np.float32)[labels]


def accuracy(dataset: Dataset, side: int) -> float:
    """Return the validation accuracy of ridge regression with the best penalty.

    The dual problem is solved because there are fewer images than features.
    """
    (x, y), (validation_images, validation_targets) = pixels(dataset, "train", side), pixels(dataset, "validation", side)
    gram = x @ x.T
    best = 0.0
    for penalty in (10, 100, 1000, 10000):
        predicted = (validation_images @ x.T) @ np.linalg.solve(gram + penalty * np.eye(len(x), dtype=np.float32), y)
        best = max(best, float((predicted.argmax(1) == validation_targets.argmax(1)).mean()))
    return best


def main() -> None:
    dataset = find_dataset(synthetic.NAME, synthetic.NAME, Path("data"))
    result = {f"accuracy_{side}": accuracy(dataset, side) for side in (32, 64)}
    print(json.dumps(result))
    write_json(RESULT, result)


if __name__ == "__main__":
    with exit_on_error():
        tyro.cli(main, description=__doc__)
