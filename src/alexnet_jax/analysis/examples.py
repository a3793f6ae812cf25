"""What a trained network makes of a few images: its guesses, and the training images nearest to them (paper, Fig. 4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from alexnet_jax.analysis.exact_search import nearest
from alexnet_jax.analysis.index import Index
from alexnet_jax.analysis.indexing import last_hidden_layer, model_digest, open_indexed_dataset
from alexnet_jax.console import track_progress
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.records import Dataset
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.weights.trained_model import TrainedModel

GUESSES = 5
BATCH = 64


class Picture(NamedTuple):
    """An image, the name of its class, and its own name."""

    pixels: UInt8[np.ndarray, "height width 3"]
    label: str
    name: str


class Prediction(NamedTuple):
    """An image, and the most probable classes with their probabilities, most probable first."""

    picture: Picture
    guesses: list[tuple[str, float]]


class Retrieved(NamedTuple):
    """An image, and the images nearest to it with their distances, nearest first."""

    picture: Picture
    nearest: list[tuple[Picture, float]]


@dataclass(frozen=True)
class ExampleOptions:
    """Which images to look at.

    Attributes:
      images: whose classes are guessed, drawn from the split that errors are measured on.
      queries: how many of them are looked for among the training images.
      nearest: training images to find for each.
      searched: training images to search, drawn at random.
      seed: of what is drawn.
    """

    images: int = 8
    queries: int = 5
    nearest: int = 6
    searched: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.images, self.queries, self.nearest, self.searched) < 1 or self.seed < 0:
            raise UserError("choose one or more --images, --queries, --nearest and --searched, and a --seed of 0 or more")


@dataclass(frozen=True)
class Examples:
    """What was found, and where.

    Attributes:
      predictions: for each image.
      retrieved: for some of them.
      split: which the images are from.
      searched: training images that were searched.
      training: and how many there are.
    """

    predictions: list[Prediction]
    retrieved: list[Retrieved]
    split: str
    searched: int
    training: int


def find_examples(
    trained: TrainedModel, dataset: Dataset, split: str, choice: ExampleOptions, index: Index | None = None
) -> Examples:
    """Guesses the classes of some images of a split, and finds the training images nearest to them.

    Args:
      trained: the network.
      dataset: a prepared data set.
      split: of it.
      choice: which images.
      index: of the training images, made by the same network: all of it is searched in place of `choice.searched`.

    Raises:
      UserError: if the index is of another network.
    """
    if index is not None and index.about.parameters != model_digest(trained):
        raise UserError(f"{index.path} was made by other parameters than those of {trained}: give another index, or none")
    rng = np.random.default_rng(choice.seed)
    images = DecodedImages(dataset, split, trained.image_size)
    shown = pictures(images, _some(rng, len(images), choice.images), dataset.manifest.classes)
    pixels = np.stack([picture.pixels for picture in shown])
    probabilities = Predictor(trained, batch_size=len(shown))(pixels)
    predictions = [Prediction(*pair) for pair in zip(shown, guesses(probabilities, trained.classes), strict=True)]

    of = Predictor(trained, layer=last_hidden_layer(trained.network), batch_size=BATCH)
    queries = of(pixels[: choice.queries])
    if index is None:
        training = dataset
        train = DecodedImages(dataset, "train", trained.image_size)
        searched = _some(rng, len(train), choice.searched)
        batches = [searched[start : start + BATCH] for start in range(0, len(searched), BATCH)]
        features = (
            of(_pixels(train, batch)) for batch in track_progress(batches, "Looking at training images", len(batches), "batches")
        )
        found = nearest(queries, features, choice.nearest)
        rows = searched[found.rows]
    else:
        training = open_indexed_dataset(index)
        train = DecodedImages(training, index.about.split, trained.image_size)
        searched, found = np.arange(len(train)), index.search(queries, choice.nearest)
        rows = found.rows
    near = [pictures(train, row, training.manifest.classes) for row in rows]
    retrieved = [
        Retrieved(picture, list(zip(those, map(float, distances), strict=True)))
        for picture, those, distances in zip(shown, near, found.distances, strict=False)
    ]
    return Examples(predictions, retrieved, split, len(searched), len(train))


def guesses(probabilities: Float[np.ndarray, "images classes"], classes: list[str]) -> list[list[tuple[str, float]]]:
    """The most probable classes of each image, most probable first."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :GUESSES]
    return [[(classes[label], float(row[label])) for label in labels] for row, labels in zip(probabilities, best, strict=True)]


def pictures(images: DecodedImages, numbers: Sequence[int] | Int[np.ndarray, " some"], classes: Sequence[str]) -> list[Picture]:
    """Images of a split by their numbers."""
    records = [images.record(int(number)) for number in numbers]
    return [Picture(images.pixels(record).copy(), classes[record.label], record.name) for record in records]


def _pixels(images: DecodedImages, numbers: Int[np.ndarray, " some"]) -> UInt8[np.ndarray, "some size size 3"]:
    pixels = np.empty((len(numbers), images.size, images.size, 3), np.uint8)
    for into, number in zip(pixels, numbers.tolist(), strict=True):
        into[:] = images.pixels(images.record(number))
    return pixels


def _some(rng: np.random.Generator, total: int, wanted: int) -> Int[np.ndarray, " some"]:
    """Numbers below `total`, in order."""
    return np.sort(rng.choice(total, min(wanted, total), replace=False))
