"""Tests of reading photos as the images of a data set are read."""

import numpy as np
import pytest

from alexnet_jax.data.pipeline.photo import decode_as_stored
from alexnet_jax.errors import UserError


def test_photo_has_the_encoding_of_the_data_set(photos):
    data = (photos / "train" / "above" / "3.jpg").read_bytes()
    photo, raw = (decode_as_stored(data, "3.jpg", 256, encoding, 32) for encoding in ("jpeg", "raw"))
    assert photo.shape == (32, 32, 3)
    np.testing.assert_allclose(photo.astype(int), raw.astype(int), atol=40)
    assert (photo != raw).any()


def test_an_error_names_the_file():
    with pytest.raises(UserError, match=r"photo.jpg cannot be read as an image: .*one of JPEG"):
        decode_as_stored("…".encode(), "photo.jpg", 256, "jpeg", 32)
