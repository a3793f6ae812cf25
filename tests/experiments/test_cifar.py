"""Tests of the learning rate search and the statistics of the CIFAR-10 studies."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(autouse=True)
def experiments_on_path(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)


def test_search_halves_the_rates_until_one_reaches_the_target():
    figure1 = import_module("cifar_figure1")
    calls = []

    def train_to(rate, epoch):
        calls.append((rate, epoch))
        speed = {0.1: 0.02, 0.2: 0.05, 0.4: 0.1, 0.8: 0.0}[rate]
        errors = [0.7 - speed * e for e in range(1, epoch + 1)]
        return errors[:1] if rate == 0.8 else errors  # 0.8 diverges

    curves = figure1.search((0.1, 0.2, 0.4, 0.8), train_to, max_epochs=50)
    assert figure1.fastest(curves) == 0.4
    assert [len(curves[rate]) for rate in (0.1, 0.2, 0.4, 0.8)] == [2, 4, 5, 1]
    assert figure1.epochs_to_target(curves[0.4]) == pytest.approx(4.5)
    assert figure1.epochs_to_target(curves[0.1]) is None
    assert len(calls) == len(set(calls))


def test_epochs_are_none_if_the_target_is_not_reached():
    figure1 = import_module("cifar_figure1")
    curves = figure1.search((1.0, 2.0), lambda rate, epoch: [0.5] * epoch, max_epochs=5)
    assert figure1.result({"relu": curves}, "cifar10")["relu"]["epochs_to_25_percent"] is None


def test_interval_equals_paired_t_test(rng):
    paired_difference = import_module("paired_ci").paired_difference
    without, with_norm = rng.normal(0.13, 0.01, 5).tolist(), rng.normal(0.11, 0.01, 5).tolist()
    difference = paired_difference(without, with_norm)
    expected = stats.ttest_rel(without, with_norm).confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
    assert difference.mean == pytest.approx(np.mean(without) - np.mean(with_norm))
    assert paired_difference([0.1], [0.2]).low is None
