"""Several trained networks that look at the same images; what they make of them is averaged."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from alexnet_jax.data.pipeline.batches import evaluation_batches
from alexnet_jax.data.pipeline.loading import check_size
from alexnet_jax.data.records import Dataset
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.predictor import Predictor, Views
from alexnet_jax.weights.trained_model import TrainedModel


class ModelPredictions(NamedTuple):
    """Of a batch of images in the order of their split: labels, and what each network holds for how probable, float32."""

    labels: Int[np.ndarray, " images"]
    probabilities: Float[np.ndarray, "networks images classes"]


class Ensemble:
    """Networks of the same classes, or a single one. Their layers and the size of their images may differ.

    Args:
      networks: one or more.
      views: over which the probabilities of each are averaged.
      batch_size: images at a time.

    Raises:
      UserError: if their classes differ.
    """

    def __init__(self, networks: Sequence[TrainedModel], *, views: Views, batch_size: int = 128):
        first = networks[0]
        for other in networks[1:]:
            if other.classes != first.classes:
                raise UserError(f"{_differ(other.classes, first.classes)}: {other} and {first} make no ensemble")
        self.networks, self.views, self.batch_size = networks, views, batch_size
        self._predictors = [Predictor(network, views=views, batch_size=batch_size) for network in networks]

    def check(self, dataset: Dataset) -> None:
        """Refuses a data set that the networks were not made for.

        Raises:
          UserError: if it has other classes, or images that a network cannot have in the size of its training.
        """
        first = self.networks[0]
        if first.classes != dataset.manifest.classes:
            told = _differ(dataset.manifest.classes, first.classes)
            raise UserError(f"{told}: {dataset.path} is not for {first}; choose another --data")
        for network in self.networks:
            try:
                check_size(dataset, network.image_size)
            except UserError as error:
                there = f"{dataset.path} holds images of {dataset.manifest.size} pixels"
                needed = f"{network} needs {network.image_size}"
                raise UserError(f"{there}, and {needed}: prepare them again with --size {network.image_size}") from error

    def batches(self, dataset: Dataset, split: str) -> Iterator[ModelPredictions]:
        """A split of a data set, batch after batch, in its order; each image is decoded once for each size that is needed.

        Raises:
          UserError: if a network has no numbers for an image.
        """
        sizes = sorted({network.image_size for network in self.networks})
        streams = [
            evaluation_batches(dataset, split, image_size=size, input_size=size, batch_size=self.batch_size) for size in sizes
        ]
        for batches in zip(*streams, strict=True):
            images = {size: batch.image for size, batch in zip(sizes, batches, strict=True)}
            of_each = [predict(images[predict.trained.image_size]) for predict in self._predictors]
            for network, rows in zip(self.networks, of_each, strict=True):
                if not np.isfinite(rows).all():
                    raise UserError(
                        f"{network} gives no numbers, so its training has diverged: take an earlier checkpoint, or --best"
                    )
            yield ModelPredictions(np.asarray(batches[0].label), np.stack(of_each))


def _differ(these: list[str], those: list[str]) -> str:
    """What differs in two lists of classes."""
    if len(these) != len(those):
        return f"{len(these)} classes, not {len(those)}"
    place = next(place for place, pair in enumerate(zip(these, those, strict=True)) if pair[0] != pair[1])
    return f"class {place} is {these[place]!r}, not {those[place]!r}"
