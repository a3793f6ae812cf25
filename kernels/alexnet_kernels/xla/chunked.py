"""Computation in chunks of a batch, so that intermediate arrays stay in a CPU's cache."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from alexnet_kernels.dispatch import current_device
from alexnet_kernels.unrolled_vmap import unrolled_vmap

Arrays = TypeVar("Arrays", Array, tuple[Array, Array])

CHUNK_BYTES = 5 << 19
"""Maximum size of the activations in a chunk, bytes: two images after AlexNet's first convolution, in float32."""


def chunked_over_batch(function: Callable[..., Arrays], x: Array, *others: Array, delay_store: bool = False) -> Arrays:
    """Compute `function(x, *others)`; on a CPU, in chunks along the first axis.

    On the whole batch, XLA would write intermediate arrays to memory: measured on two cores, the gradients of response
    normalization and of `norm_pool` took three times as long.

    Args:
      function: function that treats the images of a batch independently.
      x: array whose first axis is the batch. It is not divided if it has fewer than four axes.
      *others: further arrays with the same first axis.
      delay_store: whether to store the results of a chunk while the next one is computed. Otherwise XLA fuses the last operation
        of a chunk with the store. The fusion prevents vectorizing window maxima, which then take three times as long; window sums
        are not affected.
    """
    if x.ndim < 4 or current_device().platform != "cpu":
        return function(x, *others)
    return unrolled_vmap(partial(_map_chunks, function, delay_store))(x, *others)


def _map_chunks(function: Callable[..., Arrays], delay_store: bool, x: Array, *others: Array) -> Arrays:
    images = x.shape[0]
    max_images = max(1, CHUNK_BYTES // max(1, x[0].size * x.dtype.itemsize))
    chunk_size = max(n for n in range(1, min(images, max_images) + 1) if images % n == 0)
    if chunk_size == images:
        return function(x, *others)
    chunks = tuple(array.reshape(-1, chunk_size, *array.shape[1:]) for array in (x, *others))
    results = _map_with_delayed_store(function, chunks) if delay_store else lax.map(lambda chunk: function(*chunk), chunks)
    return jax.tree.map(lambda array: array.reshape(images, *array.shape[2:]), results)


def _map_with_delayed_store(function: Callable[..., Arrays], chunks: tuple[Array, ...]) -> Arrays:
    """Compute `lax.map` of `function(*chunk)`, with the results of each chunk stored in the next iteration."""
    count = len(chunks[0])

    def compute(index: Array | int) -> Arrays:
        return function(*(lax.dynamic_index_in_dim(array, index, keepdims=False) for array in chunks))

    def step(index: Array, carry: tuple[Arrays, Arrays]) -> tuple[Arrays, Arrays]:
        results, previous = carry
        return _store(previous, index - 1, results), compute(index)

    previous = jax.tree.map(lambda array: jnp.zeros(array.shape, array.dtype), jax.eval_shape(compute, 0))
    results = jax.tree.map(lambda array: jnp.zeros((count, *array.shape), array.dtype), previous)
    results, last = lax.fori_loop(0, count, step, (results, previous))
    return _store(last, count - 1, results)


def _store(chunk: Arrays, index: Array | int, results: Arrays) -> Arrays:
    return jax.tree.map(lambda array, part: lax.dynamic_update_index_in_dim(array, part, index, 0), results, chunk)
