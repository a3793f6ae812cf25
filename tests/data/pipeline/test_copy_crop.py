"""Test of the functions that copy crops into a batch."""

import numpy as np
import pytest

from alexnet_jax.data.pipeline.copy_crop import CropBuffer, aligned_empty, copy_crop
from alexnet_jax.parallel.mesh import batch_sharding, to_global_array
from tests.conftest import TINY, cpu_mesh


@pytest.mark.parametrize("size", [1, 3, 24, 29, 30, 32])
@pytest.mark.parametrize("flipped", [False, True])
def test_copy_crop_matches_numpy(size, flipped, rng):
    image = rng.integers(0, 256, (32, 32, 3), np.uint8)
    for top, left in {(0, 0), (32 - size, 0), ((32 - size) // 3, 32 - size)}:
        batch = np.zeros((3, size, size, 3), np.uint8)
        crop = image[top : top + size, left : left + size]
        expected = crop[:, ::-1] if flipped else crop
        copy_crop(image, top, left, flipped, batch[1])
        np.testing.assert_array_equal(batch[1], expected)
        assert not batch[[0, 2]].any()

        batch[:], buffer = 0, CropBuffer(32, size)
        buffer.pixels[:] = image[..., ::-1] if flipped else image
        if flipped:
            buffer.words_of(batch)[1] = buffer.flipped[top, left]
        else:
            buffer.rows_of(batch)[1] = buffer.crops[top, left]
        np.testing.assert_array_equal(batch[1], expected)
        assert not batch[[0, 2]].any()


def test_views_of_an_empty_batch():
    assert CropBuffer(32, 24).words_of(np.empty((0, 24, 24, 3), np.uint8)).shape == (0, 24, 9)


@pytest.mark.parametrize("size", [1, 27, 112])
def test_aligned_array_is_used_in_place(size):
    """JAX copies an array with another alignment."""
    array = aligned_empty(4, size, size, 3)
    placed = to_global_array(array, batch_sharding(cpu_mesh(TINY, 1, split=False)))
    assert placed.unsafe_buffer_pointer() == array.ctypes.data
