"""Predictions of several trained networks for the same images."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from alexnet_jax.data.pipeline.loading import check_size
from alexnet_jax.data.records import Dataset
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.predictor import ClassProbability, Photos, Predictor, Views, most_probable
from alexnet_jax.evaluation.split_batches import split_batches
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
      batch_size: images per batch, rounded up to a multiple of the number of devices.
      devices: number of devices to use in every process, see `Predictor`.

    Attributes:
      image_sizes: sizes to which the models need images to be decoded, pixels, in ascending order.

    Raises:
      UserError: if there is no model, the models have different classes, `views` or `batch_size` is invalid, or there are fewer
        devices.
    """

    def __init__(
        self, models: Sequence[TrainedModel], *, views: Views = "center", batch_size: int = 128, devices: int | None = None
    ):
        if not models:
            raise UserError("pass at least one trained model")
        first = models[0]
        for other in models[1:]:
            if other.classes != first.classes:
                difference = _class_difference(other.classes, first.classes)
                raise UserError(f"cannot average {other} and {first} ({difference}): pass networks with the same classes")
        self.models, self.views = models, views
        self.image_sizes = sorted({model.image_size for model in models})
        self._predictors = [Predictor(model, views=views, batch_size=batch_size, devices=devices) for model in models]
        self.batch_size = self._predictors[0].batch_size

    def __call__(self, images: Photos | Mapping[int, Photos]) -> Float[np.ndarray, "images classes"]:
        """Return the mean of the models' class probabilities for each image.

        Args:
          images: one image or several, as for `Predictor`, or the same images at each of the `image_sizes`, by size.

        Raises:
          UserError: if an image is invalid, or a model's probabilities are not finite.
        """
        by_size = images if isinstance(images, Mapping) else dict.fromkeys(self.image_sizes, images)
        probabilities = [predict(by_size[predict.model.image_size]) for predict in self._predictors]
        self._check_finite(probabilities)
        return self.mean(np.stack(probabilities))

    def classify(self, images: Photos | Mapping[int, Photos], top: int = 5) -> list[list[ClassProbability]]:
        """Return the most probable classes of each image, by the mean of the models' probabilities, most probable first."""
        return most_probable(self.models[0].printed_classes, self(images), top)

    def mean(
        self,
        probabilities: Float[np.ndarray, "models images classes"],
        coefficients: Float[np.ndarray, " models"] | None = None,
    ) -> Float[np.ndarray, "images classes"]:
        """Return the mean of the models' probabilities, from `batches`, weighted by `coefficients` or else equally."""
        count = len(self.models)
        return np.tensordot(np.full(count, 1 / count) if coefficients is None else coefficients, probabilities, axes=1)

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
        for labels, by_size in split_batches(dataset, split, self.image_sizes, self._predictors[0].mesh, self.batch_size):
            images = dict(zip(self.image_sizes, by_size, strict=True))
            probabilities = [predict.predict_batch(images[predict.model.image_size], len(labels)) for predict in self._predictors]
            self._check_finite(probabilities)
            yield ModelPredictions(labels, np.stack(probabilities))

    def _check_finite(self, probabilities: Sequence[Float[np.ndarray, "images classes"]]) -> None:
        for model, rows in zip(self.models, probabilities, strict=True):
            if not np.isfinite(rows).all():
                problem = f"{model} predicts non-finite probabilities because its training diverged"
                raise UserError(f"{problem}: pass an earlier checkpoint or --best")


def _class_difference(classes: list[str], expected: list[str]) -> str:
    if len(classes) != len(expected):
        return f"{len(classes)} classes instead of {len(expected)}"
    label = next(label for label, pair in enumerate(zip(classes, expected, strict=True)) if pair[0] != pair[1])
    return f"class {label} is {classes[label]!r} instead of {expected[label]!r}"
