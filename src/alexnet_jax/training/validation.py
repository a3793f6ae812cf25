"""Errors of a network on a split of a data set."""

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
    """Fractions of images whose class is not the most probable, or not among the five most probable; mean loss, nats."""

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
    """Center-crop errors over all images of a split (paper, section 2); None if `stop`, asked before every batch, says so."""
    rows = local_batch_slice(mesh, batch_size)
    batches = evaluation_batches(dataset, split, image_size=image_size, input_size=input_size, batch_size=batch_size, part=rows)
    # Each batch is waited for: several at once on CPU devices can take all threads and wait for one another for ever.
    scores: list[EvalSums] = []
    for batch in batches:
        if stop():
            return None
        scores.append(jax.device_get(step(params, put_batch(pad_batch(batch, rows.stop - rows.start), mesh), mean)))
    total: EvalSums = reduce(lambda a, b: jax.tree.map(np.add, a, b), scores)
    images = float(total.images)
    return EvalMetrics(
        float(total.top1_errors) / images, float(total.top5_errors) / images, float(total.loss) / images, int(images)
    )


def pad_batch(batch: Example, size: int) -> Example:
    """The batch, filled up to `size` with black images of class -1, which count nowhere."""
    missing = size - len(batch.label)

    def fill(values: np.ndarray, value: int) -> np.ndarray:
        return np.concatenate([values, np.full((missing, *values.shape[1:]), value, values.dtype)])

    return Example(fill(batch.image, 0), fill(batch.label, -1), fill(batch.color_shift, 0)) if missing else batch
