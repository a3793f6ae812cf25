"""Test that every config of the package trains, reports and can be loaded."""

import json
from dataclasses import replace

import pytest

from alexnet_jax.cli.train import train_with_report
from alexnet_jax.configs import config_names, load_config
from alexnet_jax.data.prepare.convert import PrepareOptions, prepare_path
from alexnet_jax.training.config import Options
from alexnet_jax.weights.trained_model import load
from tests.weights.small import small

SIZE = 96


@pytest.fixture(scope="module")
def prepared(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sizes")
    return {size: prepare_path(photos, folder / str(size), PrepareOptions(size=size)).path for size in (SIZE, 32)}


@pytest.mark.slow
@pytest.mark.parametrize("name", config_names())
def test_config_trains_one_epoch(name, prepared, tmp_path):
    """Train a small version of the network on images that are stored at its input size, so that there is no border to crop."""
    config = load_config(name).with_epochs(1)
    size, network = (32, config.network) if config.network.input_size < SIZE else (SIZE, small(config.network, SIZE))
    config = replace(
        config, network=network, batch_size=32, init_layers=None, augmentation=replace(config.augmentation, image_size=size)
    )
    run = train_with_report(name, config, Options(data=str(prepared[size]), runs_dir=tmp_path))
    assert json.loads((run / "result.json").read_text())["epochs"] == 1
    assert (run / "report.html").stat().st_size > 1000
    assert load(run).network == network.with_num_classes(2)
