"""Training steps on random images in memory, for benchmarks."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax import Network
from alexnet_jax.parallel.mesh import replicated
from alexnet_jax.training.optimizer import paper_update
from alexnet_jax.training.step import constant_hparams, initial_state, make_train_step, put_batch, random_batch


def random_training(network: Network, mesh: Mesh, batch_size: int) -> Callable[[], None]:
    """Return a function that runs the next training step and waits until it is complete.

    The step keeps the settings that `make_train_step` reads when this function is called, such as `tower_lowering`.
    """
    optimizer = paper_update()
    state = initial_state(network, mesh, optimizer, 0)
    train_step = make_train_step(network, mesh, optimizer, seed=0)
    mean = np.full((network.input_size, network.input_size, 3), 128.0, np.float32)
    arguments = jax.device_put((mean, constant_hparams(state, 1e-4)), replicated(mesh))
    # A first step with arguments that are still being copied would not run in this thread, see `configure_cpu`.
    mean, hparams = jax.block_until_ready(arguments)
    batch = put_batch(random_batch(batch_size, network.input_size), mesh)

    def step() -> None:
        nonlocal state
        state, metrics = train_step(state, batch, mean, hparams)
        jax.block_until_ready((state, metrics))

    return step
