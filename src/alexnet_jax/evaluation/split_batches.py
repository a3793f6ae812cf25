"""Batches of a split of a data set, divided among the devices and processes."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int, Shaped, UInt8

from alexnet_jax.data.records import Dataset
from alexnet_jax.parallel.mesh import batch_sharding, local_batch_slice, replicated, to_global_array


def split_batches(
    dataset: Dataset, split: str, sizes: Sequence[int], mesh: Mesh, batch_size: int
) -> Iterator[tuple[Int[np.ndarray, " batch"], list[UInt8[np.ndarray, "local ..."]]]]:
    """Load all images of a split in order, each in one process. The last batch may be smaller.

    Args:
      dataset: data set.
      split: name of the split.
      sizes: sides to which images are decoded, pixels.
      mesh: device mesh, whose devices divide each batch.
      batch_size: number of images per batch, in all processes.

    Yields:
      Labels of a batch, in all processes, and the images of this process's `local_batch_slice`, for each of the sizes.
    """
    # Imports Grain, which takes a tenth of the time of a prediction for a single photo.
    from alexnet_jax.data.pipeline.batches import LoaderOptions, evaluation_batches  # noqa: PLC0415

    options = LoaderOptions(batch_slice=local_batch_slice(mesh, batch_size))
    streams = [
        evaluation_batches(dataset, split, image_size=size, input_size=size, batch_size=batch_size, loader_options=options)
        for size in sizes
    ]
    num_images = dataset.manifest.splits[split]
    for start, batches in zip(range(0, num_images, batch_size), zip(*streams, strict=True), strict=True):
        labels = np.asarray(batches[0].label)
        if jax.process_count() > 1:
            labels = np.asarray(_replicate(mesh)(to_padded_batch(labels, mesh, batch_size)))[: num_images - start]
        yield labels, [batch.image for batch in batches]


def to_padded_batch(rows: Shaped[np.ndarray, "local ..."], mesh: Mesh, batch_size: int) -> Shaped[jax.Array, "batch ..."]:
    """Transfer a batch to the devices, sharded over them and padded with zeros.

    Args:
      rows: this process's `local_batch_slice` of the batch, without padding.
      mesh: device mesh.
      batch_size: number of rows of the padded batch, in all processes.
    """
    local = local_batch_slice(mesh, batch_size)
    padding = [(0, local.stop - local.start - len(rows)), *[(0, 0)] * (rows.ndim - 1)]
    return to_global_array(np.pad(rows, padding), batch_sharding(mesh))


@cache
def _replicate(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    """Return a jitted function that copies an array to all devices."""
    return jax.jit(lambda x: x, out_shardings=replicated(mesh))
