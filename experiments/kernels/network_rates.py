"""Training throughput of the paper's network in JAX and in PyTorch on one device, for gpu_check.py."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from timing import seconds_per_call

from alexnet_jax.model.network import Network
from alexnet_jax.parallel.mesh import make_mesh, replicated
from alexnet_jax.training.config import Precision
from alexnet_jax.training.optimizer import paper_update
from alexnet_jax.training.step import (
    constant_hparams,
    for_precision,
    initial_state,
    make_train_step,
    put_batch,
    random_batch,
)
from alexnet_kernels import default_implementation

STEPS = 5
"""Number of steps dispatched before the host waits for the device."""


def jax_images_per_second(network: Network, precision: Precision, batch_size: int, implementations: Sequence[Any]) -> float:
    """Return the throughput of the training step, in images/s.

    Args:
      network: network, with all towers on one device.
      precision: precision of activations and gradients.
      batch_size: number of images per step.
      implementations: implementations of the operations of `alexnet_kernels`; the first supported one is used.
    """
    mesh = make_mesh(network, jax.devices()[:1], split_towers=False)
    optimizer = paper_update()
    size = network.input_size
    batch, mean = put_batch(random_batch(batch_size, size), mesh), jnp.full((size, size, 3), 128, jnp.float32)
    with default_implementation(*implementations):
        state = for_precision(initial_state(network, mesh, optimizer, 0), precision)
        step = make_train_step(network, mesh, optimizer, seed=0, precision=precision)
        hparams = jax.device_put(constant_hparams(state, 1e-4), replicated(mesh))

        def block() -> None:
            nonlocal state
            for _ in range(STEPS):
                state, _ = step(state, batch, mean, hparams)
            jax.block_until_ready(state)

        return batch_size / seconds_per_call(block, STEPS, rounds=5)


def torch_images_per_second(precision: Precision, batch_size: int, *, compiled: bool, steps: int = STEPS) -> float:
    """Return the throughput of the two-tower training step in PyTorch, in images/s.

    Images are in channels-last layout; "float32" allows TF32 and "bfloat16" uses autocast.

    Args:
      precision: precision of activations and gradients.
      batch_size: number of images per step.
      compiled: whether to use `torch.compile`.
      steps: number of steps dispatched before the host waits for the device.
    """
    import torch  # type: ignore[reportMissingImports]

    sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
    from pytorch_two_tower import TwoTower, optimizer_for, train_step

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as JAX does
    torch.backends.cudnn.benchmark = True
    images = torch.randint(0, 256, (batch_size, 3, 224, 224), dtype=torch.uint8, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.zeros(batch_size, dtype=torch.long, device=device)
    model = TwoTower().to(device, memory_format=torch.channels_last)  # type: ignore[reportCallIssue]
    optimizer = optimizer_for(model)
    run: Any = torch.compile(model) if compiled else model

    def block() -> None:
        for _ in range(steps):
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
                train_step(run, optimizer, images, labels)
        if device == "cuda":
            torch.cuda.synchronize()

    return batch_size / seconds_per_call(block, steps, rounds=5)
