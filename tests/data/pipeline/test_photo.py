"""Tests of reading photos as the images of a data set are read."""

import re

import numpy as np
import pytest

from alexnet_jax.data.pipeline.photo import decode_as_stored, read_photo
from alexnet_jax.errors import UserError


def test_photo_has_the_encoding_of_the_data_set(photos):
    data = (photos / "train" / "above" / "3.jpg").read_bytes()
    photo, raw = (decode_as_stored(data, "3.jpg", 256, encoding, 32) for encoding in ("jpeg", "raw"))
    assert photo.shape == (32, 32, 3)
    np.testing.assert_allclose(photo.astype(int), raw.astype(int), atol=40)
    assert (photo != raw).any()


@pytest.mark.parametrize("exists", [False, True], ids=["missing file", "not an image"])
def test_read_photo_error_names_the_file(exists, tmp_path):
    file = tmp_path / "photo.jpg"
    if exists:
        file.write_text("…")
    with pytest.raises(UserError, match=rf"{re.escape(str(file))}.*(No such file|one of JPEG)"):
        read_photo(file, 256)
