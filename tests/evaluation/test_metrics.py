"""Tests of the error metrics and of the coefficient search on synthetic probabilities."""

import errno
import math
import os

import jax
import numpy as np
import pytest

from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.coefficients import CachedPredictions, search_coefficients
from alexnet_jax.evaluation.ensemble import ModelPredictions
from alexnet_jax.evaluation.metrics import ErrorCounter, label_ranks, top_classes
from alexnet_jax.files import atomic_text_writer


def random_predictions(rng, models, images, classes, *, steps=None):
    """Return predictions of models with decreasing accuracy; rounding to multiples of 1 / `steps` creates many ties."""
    labels = rng.integers(0, classes, images)
    logits = rng.normal(size=(models, images, classes))
    logits[:, np.arange(images), labels] += np.linspace(2, 0, models)[:, None]
    if steps:
        return ModelPredictions(
            labels, (np.round(steps * np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)) / steps).astype(np.float32)
        )
    return ModelPredictions(labels, np.exp(logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32))


def test_ties_are_ordered_by_label(rng):
    """Check that ties are ordered as in `jax.lax.top_k`, so that equal probabilities for all classes do not count as correct."""
    labels, (probabilities,) = random_predictions(rng, 1, 200, 9, steps=8)
    best = np.asarray(jax.lax.top_k(probabilities, 5)[1])
    np.testing.assert_array_equal(top_classes(probabilities), best)
    rank = label_ranks(labels, probabilities)
    np.testing.assert_array_equal(rank < 5, (best == labels[:, None]).any(axis=1))
    np.testing.assert_array_equal(rank == 0, best[:, 0] == labels)
    assert (label_ranks(np.arange(9), np.full((9, 9), 1 / 9)) == np.arange(9)).all()


@pytest.mark.parametrize("count", [1, 2, 5, 8, 9, 12])
@pytest.mark.parametrize("steps", [1, 3, 8, None])
def test_top_classes_are_those_of_a_stable_sort(count, steps, rng):
    probabilities = random_predictions(rng, 1, 300, 9, steps=steps).probabilities[0]
    for rows in (probabilities, probabilities.astype(np.float64), probabilities[:0]):
        np.testing.assert_array_equal(top_classes(rows, count), np.argsort(-rows, axis=1, kind="stable")[:, :count])


def test_top_classes_without_a_number_come_last():
    rows = np.array([[np.nan, 0.1, np.nan, 0.3], [np.nan] * 4, [0.0, np.nan, 0.0, 0.0]])
    assert top_classes(rows, 3).tolist() == [[3, 1, 0], [0, 1, 2], [0, 2, 3]]


def test_error_counter_counts_per_class_with_finite_loss():
    counter = ErrorCounter(7)
    counter.add(np.array([0, 0, 2]), np.array([[1, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0], [0.2, 0.2, 0, 0.2, 0.2, 0.1, 0.1]]))
    assert counter.class_errors == [0.5, None, 1.0, None, None, None, None]
    assert counter.mean_class_error == 0.75
    metrics = counter.metrics
    assert (metrics.top1_error, metrics.top5_error, metrics.images) == (2 / 3, 1 / 3, 3)
    assert metrics.loss == pytest.approx(2 * 126 * math.log(2) / 3), "log(2^-126), that of the smallest normal float32, for 0"


def test_top5_error_needs_more_than_five_classes():
    for classes, expected in ((5, None), (6, 0.0)):
        counter = ErrorCounter(classes)
        counter.add(np.array([0]), np.full((1, classes), 1 / classes))
        assert counter.metrics.top5_error == expected


@pytest.mark.parametrize("steps", [None, 8], ids=["", "with ties"])
@pytest.mark.parametrize("classes", [4, 5, 30])
def test_cached_predictions_count_the_same_errors(classes, steps, rng):
    labels, probabilities = random_predictions(rng, 3, 150, classes, steps=steps)
    batches = [
        ModelPredictions(labels[part], probabilities[:, part]) for part in (slice(0, 64), slice(64, 128), slice(128, None))
    ]
    cached = CachedPredictions(batches)
    for coefficients in np.array([[1, 1, 1], [0.5, 0, 0.25], [0, 0, 1]]):
        counter = ErrorCounter(classes)
        counter.add(labels, np.tensordot(coefficients, probabilities, axes=1))
        errors = counter.top5_errors if classes > 5 else counter.top1_errors
        assert cached.count_errors(coefficients) == errors.sum()


def test_searched_coefficients_are_not_worse_than_the_mean_and_ignore_noise(rng):
    for models in (2, 3, 5):
        cached = CachedPredictions([random_predictions(rng, models, 300, 20)])
        coefficients = search_coefficients(cached)
        assert coefficients.sum() == pytest.approx(1)
        assert cached.count_errors(coefficients) <= cached.count_errors(np.full(models, 1 / models))
    labels, probabilities = random_predictions(rng, 1, 300, 20)
    noise = 4 * rng.random((1, 300, 20), np.float32)
    cached = CachedPredictions([ModelPredictions(labels, np.concatenate([noise, probabilities]))])
    assert search_coefficients(cached)[0] < 0.1
    assert cached.count_errors(search_coefficients(cached)) < cached.count_errors(np.full(2, 0.5))


def test_atomic_text_writer_keeps_the_old_file_on_failure(tmp_path):
    file = tmp_path / "new" / "errors.json"
    with atomic_text_writer(file) as text:
        text.write("first")

    def write_partially():
        with atomic_text_writer(file) as text:
            text.write("second")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(UserError, match="no space left on the disk for"):
        write_partially()
    assert file.read_text() == "first"
    assert list(file.parent.iterdir()) == [file]
