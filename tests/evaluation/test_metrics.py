"""Errors and the search of coefficients, on probabilities made by hand."""

import errno
import math
import os

import jax
import numpy as np
import pytest

from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.coefficients import CachedPredictions, search
from alexnet_jax.evaluation.ensemble import ModelPredictions
from alexnet_jax.evaluation.metrics import ErrorCounter, ranks, top_classes
from alexnet_jax.files import atomic_text_writer


def opinions(rng, networks, images, classes, *, steps=None):
    """Of networks, the first of which are the better; in few steps there are many draws."""
    labels = rng.integers(0, classes, images)
    logits = rng.normal(size=(networks, images, classes))
    logits[:, np.arange(images), labels] += np.linspace(2, 0, networks)[:, None]
    if steps:
        return ModelPredictions(
            labels, (np.round(steps * np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)) / steps).astype(np.float32)
        )
    return ModelPredictions(labels, np.exp(logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32))


def test_draws_are_decided_as_in_training(rng):
    """By the place in the list: a network that knows nothing is not right by being undecided."""
    labels, (probabilities,) = opinions(rng, 1, 200, 9, steps=8)
    best = np.asarray(jax.lax.top_k(probabilities, 5)[1])
    np.testing.assert_array_equal(top_classes(probabilities), best)
    rank = ranks(labels, probabilities)
    np.testing.assert_array_equal(rank < 5, (best == labels[:, None]).any(axis=1))
    np.testing.assert_array_equal(rank == 0, best[:, 0] == labels)
    assert (ranks(np.arange(9), np.full((9, 9), 1 / 9)) == np.arange(9)).all()


def test_a_tally_counts_by_class_and_a_sure_mistake_has_a_loss():
    tally = ErrorCounter(7)
    tally.add(np.array([0, 0, 2]), np.array([[1, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0], [0.2, 0.2, 0, 0.2, 0.2, 0.1, 0.1]]))
    assert tally.of_classes == [0.5, None, 1.0, None, None, None, None]
    assert tally.mean_of_classes == 0.75
    errors = tally.errors
    assert (errors.top1_error, errors.top5_error, errors.images) == (2 / 3, 1 / 3, 3)
    assert math.isfinite(errors.loss)


@pytest.mark.parametrize("steps", [None, 8], ids=["", "with draws"])
@pytest.mark.parametrize("classes", [4, 30])
def test_rivals_are_all_it_takes_to_count_errors(classes, steps, rng):
    labels, probabilities = opinions(rng, 3, 150, classes, steps=steps)
    batches = [
        ModelPredictions(labels[part], probabilities[:, part]) for part in (slice(0, 64), slice(64, 128), slice(128, None))
    ]
    rivals = CachedPredictions(batches)
    for coefficients in np.array([[1, 1, 1], [0.5, 0, 0.25], [0, 0, 1]]):
        tally = ErrorCounter(classes)
        tally.add(labels, np.tensordot(coefficients, probabilities, axes=1))
        errors = tally.top5_errors if classes > 5 else tally.top1_errors
        assert rivals.errors(coefficients) == errors.sum()


def test_the_search_is_never_worse_than_the_mean_and_finds_who_knows_nothing(rng):
    for networks in (2, 3, 5):
        rivals = CachedPredictions([opinions(rng, networks, 300, 20)])
        found = search(rivals)
        assert found.sum() == pytest.approx(1)
        assert rivals.errors(found) <= rivals.errors(np.full(networks, 1 / networks))
    labels, probabilities = opinions(rng, 1, 300, 20)
    noise = 4 * rng.random((1, 300, 20), np.float32)
    rivals = CachedPredictions([ModelPredictions(labels, np.concatenate([noise, probabilities]))])
    assert search(rivals)[0] < 0.1
    assert rivals.errors(search(rivals)) < rivals.errors(np.full(2, 0.5))


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "new" / "errors.json"
    with atomic_text_writer(file) as text:
        text.write("first")

    def write_half():
        with atomic_text_writer(file) as text:
            text.write("second")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(UserError, match="no room left on the disk for"):
        write_half()
    assert file.read_text() == "first"
    assert list(file.parent.iterdir()) == [file]
