"""Tests of the page on initial weights and learning rates, and of the study with its network."""

import json
import math
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from alexnet_jax.errors import DivergedError
from alexnet_jax.model.tower import parameter_shapes
from alexnet_jax.training.train import train

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return import_module("initial_weights")


def test_standard_deviations_follow_from_the_number_of_inputs(study):
    """Compare with the shapes of the kernels, which do not depend on the numbers in the page."""
    configs = list(study.configs().values())
    network = configs[0].network
    kernels = [layer["kernel"] for layer in parameter_shapes(network).values()]
    inputs = [math.prod(kernel[1:-1]) for kernel in kernels]
    stds = np.array([[layer.std for layer in config.network.layers if hasattr(layer, "std")] for config in configs])
    he = np.sqrt(2 / np.array(inputs))
    np.testing.assert_allclose(stds[:4], [he / 590 ** (1 / 3), he / 59 ** (1 / 3), [he[0] / 59, *he[1:]], he])
    assert [f"{std:.2g}" for std in stds[0]] == ["0.019", "0.0084", "0.005"], "in the text"


@pytest.mark.parametrize("weights", ["√(2/n) / (10 scale)^(1/3), as above", "√(2/n)"])
def test_network_of_the_page_learns_and_with_usual_weights_it_does_not(study, weights, options):
    config = replace(study.configs()[weights], batch_size=8, default_data="photos")
    if weights == "√(2/n)":
        config = replace(config, epochs=1, learning_rate=0.01)
    try:
        metrics = train("three_layers", config, replace(options, devices=1)).metrics
    except DivergedError:
        metrics = None
    learned = metrics is not None and metrics.top1_error < 0.25
    assert learned == (weights != "√(2/n)"), "the error of guessing is 0.5"


def test_statements_of_the_page_are_measured(study):
    """Check what the text says about the table, and that the config of the page has the best of the rates."""
    measured = json.loads(study.RESULT.read_text())
    assert round(measured["pixel_scale"]) == 59
    assert measured["majority_error"] == pytest.approx(0.9)
    assert list(measured["errors"]) == list(study.configs())
    rule, equally, first_layer, he, *_ = measured["errors"].values()
    assert measured["rates"][rule.index(min(rule))] == study.page_names()["CONFIG"].learning_rate
    assert min(rule) < 0.3 < min(equally) < 0.6 < min(first_layer)
    assert min(he) > 0.89
    text = study.PAGE.read_text()
    assert f"590^(2/3) = {590 ** (2 / 3):.0f}" in text
