"""Tests that images in memory become a data set with the same pixels and labels."""

import jaxtyping
import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.prepare.convert import PrepareOptions, prepare
from alexnet_jax.data.sources.arrays import ArraySource
from alexnet_jax.data.sources.held_out import ValidationSplit, hold_out
from alexnet_jax.errors import UserError

LABELS = np.arange(20) % 2


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (20, 24, 24, 3), np.uint8)


def test_pixels_and_labels_are_stored_as_they_are(images, tmp_path):
    source = ArraySource(["cat", "dog"], (images, LABELS), test=(list(images[:3]), [1, 1, 0]))
    dataset = prepare(source, tmp_path / "animals")
    assert (dataset.manifest.size, dataset.manifest.splits) == (24, {"train": 20, "test": 3})
    np.testing.assert_allclose(dataset.mean_image, images.mean(axis=0), atol=1e-4)
    for split, labels in (("train", LABELS), ("test", [1, 1, 0])):
        stored = DecodedImages(dataset, split, 24)
        records = [stored.record(index) for index in range(len(stored))]
        assert [record.label for record in records] == list(labels)
        np.testing.assert_array_equal(
            [np.frombuffer(record.image, np.uint8).reshape(24, 24, 3) for record in records], images[: len(labels)]
        )
    assert prepare(source, tmp_path / "animals").checksum == dataset.checksum  # it is only opened
    changed = ArraySource(["cat", "dog"], (images, LABELS[::-1]), test=(images[:3], [1, 1, 0]))
    with pytest.raises(UserError, match="already exists with different content"):
        prepare(changed, tmp_path / "animals")


def test_images_of_several_sizes_are_scaled_and_some_are_held_out(images, tmp_path):
    source = ArraySource(["cat", "dog"], ([*images[:-1], Image.fromarray(images[-1, :20])], LABELS))
    assert (source.size, source.raw) == (256, False)
    dataset = prepare(hold_out(source, ValidationSplit(0.3)), tmp_path / "animals", PrepareOptions(size=16))
    assert dataset.manifest.size == 16
    assert sum(dataset.manifest.splits.values()) == 20
    assert dataset.evaluation_split == "validation"


@pytest.mark.parametrize(
    ("change", "labels", "message"),
    [
        (
            lambda images: images / 255,
            LABELS,
            r"train image 0 has type float64 and shape \[24, 24, 3\]: pass RGB images as uint8",
        ),
        (lambda images: images[..., 0], LABELS, r"train image 0 has type uint8 and shape \[24, 24\]"),
        (lambda images: images, LABELS[:19], r"the train labels have type int64 and shape \[19\]: .* each of 20 images"),
        (lambda images: images, LABELS / 1, "the train labels have type float64"),
        (lambda images: images, LABELS + 1, "the train labels are from 1 to 2: pass labels from 0 to 1"),
        (lambda images: images, LABELS - 1, "the train labels are from -1 to 0"),
        (lambda images: images, 0 * LABELS, "no training image has the label 1, dog: omit this class"),
        (lambda images: images[:0], LABELS[:0], "each of 0 images"),
    ],
)
def test_other_arrays_are_refused(images, change, labels, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests check types, users do not
    with pytest.raises(UserError, match=message):
        ArraySource(["cat", "dog"], (change(images), labels))
