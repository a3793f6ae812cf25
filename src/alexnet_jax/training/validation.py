"""Center-crop validation on a split of a data set."""

from collections.abc import Callable
from contextlib import closing
from functools import reduce

import jax
import numpy as np

from alexnet_jax.data.pipeline.augment import Example
from alexnet_jax.data.pipeline.batches import LoaderOptions, evaluation_batches
from alexnet_jax.model.tower import Params
from alexnet_jax.parallel.mesh import local_batch_slice, parameter_sharding
from alexnet_jax.training.confusion import Confusions
from alexnet_jax.training.evaluation_step import EvalOutputs, EvalSums
from alexnet_jax.training.metrics import EvalMetrics, Validation
from alexnet_jax.training.prefetch import Prefetcher
from alexnet_jax.training.setup import TrainContext
from alexnet_jax.training.step import put_batch


def validate(
    context: TrainContext, params: Params, num_images: int | None = None, *, stop: Callable[[], bool] = lambda: False
) -> Validation | None:
    """Compute center-crop metrics on the images of the evaluation split (paper, section 2).

    Args:
      context: training run.
      params: parameters of the network.
      num_images: number of images of a random part of the split, see `random_part`; None for the whole split.
      stop: called before every batch; if it returns True, validation is canceled.

    Returns:
      Metrics and confusions; None if `stop` canceled validation.
    """
    config, mesh = context.config, context.mesh
    if context.gradient_sum.sharded:
        params = jax.device_put(params, parameter_sharding(mesh))  # once, not in every evaluation step
    rows = local_batch_slice(mesh, config.batch_size)
    batches = evaluation_batches(
        context.dataset,
        context.dataset.evaluation_split,
        image_size=config.augmentation.image_size,
        input_size=context.network.input_size,
        batch_size=config.batch_size,
        loader_options=LoaderOptions(batch_slice=rows, num_images=num_images),
    )
    # Wait for every batch: on CPU devices, several concurrent batches can block all of XLA's threads and deadlock.
    batch_sums: list[EvalSums] = []
    confusions = Confusions(context.network.num_classes)
    with closing(Prefetcher(batches, lambda batch: put_batch(pad_batch(batch, rows.stop - rows.start), mesh))) as padded:
        for batch in padded:
            if stop():
                return None
            outputs: EvalOutputs = jax.device_get(context.evaluation_step(params, batch, context.mean))
            batch_sums.append(outputs.sums)
            confusions.add(outputs.labels, outputs.predictions)
    total: EvalSums = reduce(lambda a, b: jax.tree.map(np.add, a, b), batch_sums)
    images = float(total.images)
    top5_error = float(total.top5_errors) / images if context.network.num_classes > 5 else None
    errors = float(total.top1_errors) / images, top5_error, float(total.loss) / images
    return Validation(EvalMetrics(*errors, int(images), len(confusions.predicted_classes)), confusions)


def pad_batch(batch: Example, size: int) -> Example:
    """Pad a batch to `size` images with black images of label -1, which metrics ignore."""
    padding = size - len(batch.label)

    def pad(values: np.ndarray, value: int) -> np.ndarray:
        return np.concatenate([values, np.full((padding, *values.shape[1:]), value, values.dtype)])

    return Example(pad(batch.image, 0), pad(batch.label, -1), pad(batch.color_shift, 0)) if padding else batch
