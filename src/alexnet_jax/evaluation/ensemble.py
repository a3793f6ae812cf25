"""Predictions of several trained networks for the same images."""

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
    """Labels of a batch of images, in the order of their split, and the probabilities predicted by each model, float32."""

    labels: Int[np.ndarray, " images"]
    probabilities: Float[np.ndarray, "models images classes"]


class Ensemble:
    """One or more trained models with the same classes; their architectures and image sizes may differ.

    Args:
      models: models of the ensemble.
      views: views of an image over which each model's probabilities are averaged.
      batch_size: images per batch.

    Raises:
      UserError: if the models have different classes.
    """

    def __init__(self, models: Sequence[TrainedModel], *, views: Views, batch_size: int = 128):
        first = models[0]
        for other in models[1:]:
            if other.classes != first.classes:
                difference = _class_difference(other.classes, first.classes)
                raise UserError(f"cannot average {other} and {first} ({difference}): pass networks with the same classes")
        self.models, self.views, self.batch_size = models, views, batch_size
        self._predictors = [Predictor(model, views=views, batch_size=batch_size) for model in models]

    def check(self, dataset: Dataset) -> None:
        """Check that the models can be evaluated on a data set.

        Raises:
          UserError: if its classes differ from those of the models, or its images cannot be decoded to the image size of a model.
        """
        first = self.models[0]
        if first.classes != dataset.manifest.classes:
            difference = _class_difference(dataset.manifest.classes, first.classes)
            raise UserError(f"{dataset.path} does not match {first} ({difference}): pass a different --data")
        for model in self.models:
            try:
                check_size(dataset, model.image_size)
            except UserError as error:
                stored = f"{dataset.path} has images of {dataset.manifest.size} pixels"
                needed = f"{model} needs {model.image_size}"
                raise UserError(f"{stored}, but {needed}: prepare the data set again with --size {model.image_size}") from error

    def batches(self, dataset: Dataset, split: str) -> Iterator[ModelPredictions]:
        """Predict a split of a data set, in order. Each image is decoded once for each image size of the models.

        Yields:
          Predictions of all models for a batch.

        Raises:
          UserError: if a model's probabilities are not finite.
        """
        sizes = sorted({model.image_size for model in self.models})
        streams = [
            evaluation_batches(dataset, split, image_size=size, input_size=size, batch_size=self.batch_size) for size in sizes
        ]
        for batches in zip(*streams, strict=True):
            images = {size: batch.image for size, batch in zip(sizes, batches, strict=True)}
            probabilities = [predict(images[predict.model.image_size]) for predict in self._predictors]
            for model, rows in zip(self.models, probabilities, strict=True):
                if not np.isfinite(rows).all():
                    problem = f"{model} predicts non-finite probabilities because its training diverged"
                    raise UserError(f"{problem}: pass an earlier checkpoint or --best")
            yield ModelPredictions(np.asarray(batches[0].label), np.stack(probabilities))


def _class_difference(classes: list[str], expected: list[str]) -> str:
    if len(classes) != len(expected):
        return f"{len(classes)} classes instead of {len(expected)}"
    label = next(label for label, pair in enumerate(zip(classes, expected, strict=True)) if pair[0] != pair[1])
    return f"class {label} is {classes[label]!r} instead of {expected[label]!r}"
