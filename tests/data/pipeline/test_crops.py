import numpy as np
import pytest

from alexnet_jax.data.pipeline.crops import copy_crop, copy_reversed


@pytest.mark.parametrize("size", [1, 3, 24, 29, 30, 32])
@pytest.mark.parametrize("flipped", [False, True])
def test_a_crop_is_copied_as_numpy_would(size, flipped, rng):
    image = rng.integers(0, 256, (32, 32, 3), np.uint8)
    for top, left in {(0, 0), (32 - size, 0), ((32 - size) // 3, 32 - size)}:
        batch = np.zeros((3, size, size, 3), np.uint8)
        part = image[top : top + size, left : left + size]
        expected = part[:, ::-1] if flipped else part
        copy_crop(image, top, left, flipped, batch[1])
        np.testing.assert_array_equal(batch[1], expected)
        if flipped:
            copy_reversed(np.ascontiguousarray(image[..., ::-1]), top, left, batch[1])
            np.testing.assert_array_equal(batch[1], expected)
        assert not batch[[0, 2]].any()
