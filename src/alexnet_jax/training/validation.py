"""Center-crop validation on a split of a data set."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.data.pipeline.augment import Example
from alexnet_jax.data.pipeline.batches import evaluation_batches
from alexnet_jax.data.records import Dataset
from alexnet_jax.model.tower import Params
from alexnet_jax.parallel.mesh import local_batch_slice
from alexnet_jax.training.step import EvalSums, EvaluationStep, MeanImage, put_batch


@dataclass(frozen=True)
class EvalMetrics:
    """Mean metrics over the images of a split.

    Attributes:
      top1_error: fraction of images whose class is not the most probable one.
      top5_error: fraction of images whose class is not among the five most probable ones.
      loss: mean cross-entropy, nats.
      images: number of images.
    """

    top1_error: float
    top5_error: float
    loss: float
    images: int


def validate(
    step: EvaluationStep,
    params: Params,
    mean: MeanImage,
    mesh: Mesh,
    dataset: Dataset,
    split: str,
    *,
    image_size: int,
    input_size: int,
    batch_size: int,
    stop: Callable[[], bool],
) -> EvalMetrics | None:
    """Compute center-crop metrics on all images of a split (paper, section 2).

    Args:
      step: evaluation step, see `make_evaluation_step`.
      params: parameters of the network.
      mean: mean image before cropping, pixel values from 0 to 255.
      mesh: device mesh.
      dataset: data set.
      split: name of the split.
      image_size: side to which images are decoded, pixels.
      input_size: side of the center crops, pixels.
      batch_size: images per global batch.
      stop: called before every batch; if it returns True, validation is canceled.

    Returns:
      Metrics of the split; None if `stop` canceled validation.
    """
    rows = local_batch_slice(mesh, batch_size)
    batches = evaluation_batches(
        dataset, split, image_size=image_size, input_size=input_size, batch_size=batch_size, batch_slice=rows
    )
    # Wait for every batch: on CPU devices, several concurrent batches can block all of XLA's threads and deadlock.
    batch_sums: list[EvalSums] = []
    for batch in batches:
        if stop():
            return None
        batch_sums.append(jax.device_get(step(params, put_batch(pad_batch(batch, rows.stop - rows.start), mesh), mean)))
    total: EvalSums = reduce(lambda a, b: jax.tree.map(np.add, a, b), batch_sums)
    images = float(total.images)
    return EvalMetrics(
        float(total.top1_errors) / images, float(total.top5_errors) / images, float(total.loss) / images, int(images)
    )


def pad_batch(batch: Example, size: int) -> Example:
    """Pad a batch to `size` images with black images of label -1, which metrics ignore."""
    padding = size - len(batch.label)

    def pad(values: np.ndarray, value: int) -> np.ndarray:
        return np.concatenate([values, np.full((padding, *values.shape[1:]), value, values.dtype)])

    return Example(pad(batch.image, 0), pad(batch.label, -1), pad(batch.color_shift, 0)) if padding else batch
