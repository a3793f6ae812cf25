"""Predictions of a trained model for example images, and the training images nearest to them (paper, Fig. 4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from alexnet_jax.analysis.code_search import read_codes, search_index
from alexnet_jax.analysis.exact_search import nearest_neighbors
from alexnet_jax.analysis.index import Index
from alexnet_jax.analysis.indexing import last_hidden_layer, model_digest, open_indexed_dataset
from alexnet_jax.console import track_progress
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.records import Dataset
from alexnet_jax.errors import MAX_SEED, UserError, check_at_least, check_number
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.weights.trained_model import TrainedModel

BATCH_SIZE = 64


class LabeledImage(NamedTuple):
    """Pixels of an image, the printed name of its class or an empty string, and its own name."""

    pixels: UInt8[np.ndarray, "height width 3"]
    label: str
    name: str


class Prediction(NamedTuple):
    """Image and its most probable classes with their probabilities, most probable first."""

    image: LabeledImage
    top_classes: Sequence[tuple[str, float]]


class Retrieval(NamedTuple):
    """Query image and the images nearest to it with their distances, nearest first."""

    query: LabeledImage
    neighbors: list[tuple[LabeledImage, float]]


@dataclass(frozen=True)
class ExampleOptions:
    """Selection of example images.

    Attributes:
      images: number of images to classify, drawn at random from the split.
      queries: number of these images for which to retrieve the nearest training images.
      nearest: number of training images to retrieve per query.
      searched: number of training images to search, drawn at random.
      seed: seed of the random selection.
    """

    images: int = 8
    queries: int = 5
    nearest: int = 6
    searched: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, images=1, queries=1, nearest=1, searched=1)
        check_number("--seed", self.seed, at_least=0, at_most=MAX_SEED)


@dataclass(frozen=True)
class Examples:
    """Predictions and retrieved images.

    Attributes:
      predictions: prediction for each example image.
      retrievals: training images retrieved for the first `ExampleOptions.queries` example images.
      split: split of the example images.
      num_searched: number of training images that were searched.
      num_training: number of training images in the data set.
      code_bits: number of bits of the codes by which they were searched; None if they were searched exactly.
    """

    predictions: list[Prediction]
    retrievals: list[Retrieval]
    split: str
    num_searched: int
    num_training: int
    code_bits: int | None = None


def find_examples(
    model: TrainedModel, dataset: Dataset, split: str, options: ExampleOptions, index: Index | None = None
) -> Examples:
    """Classify some images of a split and retrieve the training images nearest to them by the features of the last hidden layer.

    Args:
      model: trained model.
      dataset: prepared data set.
      split: split of the images to classify.
      options: selection of the images.
      index: index of the training images, built with the same model, to search instead of `options.searched` random images, by
        its binary codes if it has any.

    Raises:
      UserError: if the index was built with a different model, or its codes cannot be read.
    """
    if index is not None and index.metadata.parameters != model_digest(model):
        raise UserError(f"{index.path} was built from different parameters than {model}: rebuild the index, or omit --index")
    rng = np.random.default_rng(options.seed)
    images = DecodedImages(dataset, split, model.image_size)
    printed = dict(zip(model.classes, model.printed_classes, strict=True))
    examples = read_images(images, _sample(rng, len(images), options.images), dataset, printed)
    pixels = np.stack([image.pixels for image in examples])
    predictions = list(map(Prediction, examples, Predictor(model, batch_size=len(examples)).classify(pixels)))

    extract_features = Predictor(model, layer=last_hidden_layer(model.network), batch_size=BATCH_SIZE)
    queries = extract_features(pixels[: options.queries])
    codes = None if index is None else read_codes(index)
    if index is None:
        training = dataset
        train = DecodedImages(dataset, "train", model.image_size)
        searched = _sample(rng, len(train), options.searched)
        batches = [searched[start : start + BATCH_SIZE] for start in range(0, len(searched), BATCH_SIZE)]
        features = (
            extract_features(_read_pixels(train, batch))
            for batch in track_progress(batches, "Searching training images", len(batches), "batch")
        )
        nearest = nearest_neighbors(queries, features, options.nearest)
        indices = searched[nearest.indices]
    else:
        training = open_indexed_dataset(index)
        train = DecodedImages(training, index.metadata.split, model.image_size)
        searched, nearest = np.arange(len(train)), search_index(index, codes, queries, options.nearest)
        indices = nearest.indices
    neighbors = [read_images(train, row, training, printed) for row in indices]
    retrievals = [
        Retrieval(query, list(zip(images, map(float, distances), strict=True)))
        for query, images, distances in zip(examples, neighbors, nearest.distances, strict=False)
    ]
    return Examples(predictions, retrievals, split, len(searched), len(train), codes and codes.encoder.bits)


def read_images(
    images: DecodedImages, indices: Sequence[int] | Int[np.ndarray, " images"], dataset: Dataset, printed: Mapping[str, str]
) -> list[LabeledImage]:
    """Read images of a split. Images without a label have an empty one; `printed` are the names of classes to print, by class."""
    records = [images.record(int(index)) for index in indices]
    labels = [dataset.class_of(record.label) for record in records]
    return [
        LabeledImage(images.decode(record).copy(), printed.get(label, label), record.name)
        for record, label in zip(records, labels, strict=True)
    ]


def _read_pixels(images: DecodedImages, indices: Int[np.ndarray, " images"]) -> UInt8[np.ndarray, "images size size 3"]:
    pixels = np.empty((len(indices), images.size, images.size, 3), np.uint8)
    for out, index in zip(pixels, indices.tolist(), strict=True):
        out[:] = images.decode(images.record(index))
    return pixels


def _sample(rng: np.random.Generator, total: int, count: int) -> Int[np.ndarray, " count"]:
    """Return `count` distinct random indices below `total`, or all if there are fewer, in ascending order."""
    return np.sort(rng.choice(total, min(count, total), replace=False))
