"""Errors of the three-layer network of docs/own-network.md with other initial weights and learning rates.

    make experiment EXP=initial_weights

Trains the config of that page for each pair and writes results/initial_weights.json, in about ten minutes on two cores.
"""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.cli.process import configure_training
from alexnet_jax.data.find import find_dataset
from alexnet_jax.data.pipeline.augment import center_crop, resize_mean_image
from alexnet_jax.data.pipeline.batches import evaluation_batches
from alexnet_jax.data.records import Dataset
from alexnet_jax.errors import DivergedError
from alexnet_jax.files import write_json
from alexnet_jax.model.layers import WeightedLayer
from alexnet_jax.model.tower import init, stacked_towers
from alexnet_jax.training.config import Options, TrainConfig
from alexnet_jax.training.train import train

PAGE = Path(__file__).parents[1] / "docs" / "own-network.md"
RESULT = Path(__file__).parent / "results" / "initial_weights.json"
RATES = (0.01, 0.001, 0.0003, 0.0001)
RUNS = Path("runs") / "initial_weights"


def page_names() -> dict[str, Any]:
    """Return the names that the Python code of the page defines, such as `CONFIG`."""
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1], names)
    return names


def configs() -> dict[str, TrainConfig]:
    """Return the config of the page, and those with other initial weights, by a description of the weights."""
    names = page_names()
    config, scale = names["CONFIG"], names["PIXEL_SCALE"]
    layers = [layer for layer in config.network.layers if isinstance(layer, WeightedLayer)]
    he = [layer.std * (10 * scale) ** (1 / len(layers)) for layer in layers]
    return {
        "√(2/n) / (10 scale)^(1/3), as above": config,
        "√(2/n) / scale^(1/3)": with_stds(config, [std / scale ** (1 / len(layers)) for std in he]),
        "√(2/n) / scale in conv1, √(2/n) in the others": with_stds(config, [he[0] / scale, *he[1:]]),
        "√(2/n)": with_stds(config, he),
        "0.05": with_stds(config, [0.05] * len(layers)),
        "0.01": with_stds(config, [0.01] * len(layers)),
    }


def with_stds(config: TrainConfig, stds: list[float]) -> TrainConfig:
    """Return the config with the standard deviation of each weighted layer's initial weights."""
    values = iter(stds)
    layers = [layer.clone(std=next(values)) if isinstance(layer, WeightedLayer) else layer for layer in config.network.layers]
    return replace(config, network=replace(config.network, layers=tuple(layers)))


def initial_logits(config: TrainConfig, dataset: Dataset) -> float:
    """Return the root mean square of the logits of 128 validation images before training."""
    network, image_size = config.network, config.augmentation.image_size
    batches = evaluation_batches(dataset, "validation", image_size=image_size, input_size=network.input_size, batch_size=128)
    mean = center_crop(resize_mean_image(dataset.mean_image, config.augmentation), network.input_size)
    params = init(network, jax.random.key(config.seed))
    logits = np.asarray(stacked_towers(network).apply({"params": params}, next(batches).image - mean))
    return float(np.sqrt(np.mean(logits**2)))


def main() -> None:
    options = Options(runs_dir=RUNS, devices=1, fresh=True)
    configure_training(options, 1)
    dataset = find_dataset(None, "synthetic", options.data_dir)
    logits = {name: initial_logits(config, dataset) for name, config in configs().items()}
    errors: dict[str, list[float | None]] = {}
    for name, config in configs().items():
        errors[name] = []
        for rate in RATES:
            try:
                metrics = train("three_layers", replace(config, learning_rate=rate), options).metrics
                assert metrics is not None
                errors[name].append(metrics.top1_error)
            except DivergedError:
                errors[name].append(None)
            print(name, rate, errors[name][-1], flush=True)
    result = {
        "data": dataset.path.name,
        "images": dataset.manifest.splits["validation"],
        "majority_error": dataset.majority_error,
        "pixel_scale": math.sqrt(sum(deviation**2 for deviation in dataset.manifest.color_deviations) / 3),
        "initial_logits": logits,
        "rates": list(RATES),
        "errors": errors,
        "jax": jax.__version__,
    }
    write_json(RESULT, result)


if __name__ == "__main__":
    with exit_on_error():
        tyro.cli(main, description=__doc__)
