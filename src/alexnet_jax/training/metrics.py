"""Metrics of a split of a data set."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from alexnet_jax.training.confusion import Confusions


@dataclass(frozen=True)
class EvalMetrics:
    """Mean metrics over the images of a split.

    Attributes:
      top1_error: fraction of images whose class is not the most probable one.
      top5_error: fraction of images whose class is not among the five most probable ones; None if there are no more than five
        classes.
      loss: mean cross-entropy, nats.
      images: number of images.
      predicted_classes: number of classes that are the most probable one of at least one image; None if it was not recorded.
    """

    top1_error: float
    top5_error: float | None
    loss: float
    images: int
    predicted_classes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as JSON, rounded to six decimals."""
        return {name: value if value is None else round(value, 6) for name, value in asdict(self).items()}


class Validation(NamedTuple):
    """Result of a validation: metrics, and numbers of images by true and predicted class."""

    metrics: EvalMetrics
    confusions: Confusions
