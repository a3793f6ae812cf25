"""Data set of images with a bright band, and runs with random parameters, for the tests of `evaluate`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.data.pipeline.augment import resize_mean_image
from alexnet_jax.parallel import placement
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.run_config import RunConfig
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.training.step import TrainState
from tests.conftest import cpu_mesh

CLASSES = [f"band {label}" for label in range(7)]
COUNTS = {"train": [12] * 7, "validation": [4, 3, 5, 2, 6, 3, 0], "test": [5, 1, 4, 6, 2, 3, 2]}


def create_untrained_run(dataset, folder, config, std=0.15):
    """Write a run folder with a checkpoint of random parameters, and return the folder."""
    network = config.network.with_num_classes(len(dataset.manifest.classes))
    run, record = RunDirectory(folder), RunConfig.of_training(config, network, dataset).to_json()
    run.write_mean_image(resize_mean_image(dataset.mean_image, config.augmentation))
    rng = np.random.default_rng(config.seed)
    shapes = jax.eval_shape(partial(placement.init, network, cpu_mesh(network, 1, split=False)), jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.asarray(std * rng.normal(size=leaf.shape), jnp.float32), shapes)
    checkpoints = Checkpoints(run.checkpoints, record)
    checkpoints.save(TrainState(jnp.asarray(7, jnp.int32), params, params), {})
    checkpoints.close()
    return folder
