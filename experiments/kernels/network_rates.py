"""Training steps of the two towers: ours with and without kernels, and PyTorch's, images/s on one device."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from timing import seconds_a_call

from alexnet_jax.model.alexnet import QUICKSTART, TWO_TOWER
from alexnet_jax.parallel.mesh import make_mesh, replicated
from alexnet_jax.training.flops import training_flops_per_image
from alexnet_jax.training.optimizer import paper_update
from alexnet_jax.training.step import constant_hparams, initial_state, make_train_step, put_batch, random_batch
from alexnet_kernels import default_implementation

STEPS = 5  # in a block: the device never waits for the host


def network_rates(peaks: dict[str, float], *, tiny: bool) -> Iterator[dict[str, Any]]:
    """A row for each precision and batch size, as soon as it is measured.

    Args:
      peaks: measured rate of matrix products by precision, FLOP/s.
      tiny: a small network and batch.
    """
    network = QUICKSTART if tiny else TWO_TOWER
    for precision in ("bfloat16", "float32"):
        for batch in (2,) if tiny else (128, 1024):
            rates = {
                "kernels": ours(network, precision, batch, ("triton", "xla")),
                "xla": ours(network, precision, batch, ("xla",)),
            }
            if importlib.util.find_spec("torch") and not (tiny and precision == "bfloat16"):  # minutes on a CPU
                rates |= pytorch(precision, batch)
            row = {
                "network": network.name,
                "precision": precision,
                "batch": batch,
                "images_per_second": rates,
                "share_of_matmul_rate": training_flops_per_image(network) * rates["kernels"] / peaks[precision],
            }
            print(f"training step, {precision}, batch {batch}: {rates} images/s", flush=True)
            yield row


def ours(network, precision, batch_size: int, implementations) -> float:
    mesh = make_mesh(network, jax.devices()[:1], split_towers=False)
    optimizer = paper_update()
    size = network.input_size
    batch, mean = put_batch(random_batch(batch_size, size), mesh), jnp.full((size, size, 3), 128, jnp.float32)
    with default_implementation(*implementations):
        state = initial_state(network, mesh, optimizer, 0)
        step = make_train_step(network, mesh, optimizer, seed=0, precision=precision)
        hparams = jax.device_put(constant_hparams(state, 1e-4), replicated(mesh))

        def block() -> None:
            nonlocal state
            for _ in range(STEPS):
                state, _ = step(state, batch, mean, hparams)
            jax.block_until_ready(state)

        return batch_size / seconds_a_call(block, STEPS, rounds=5)


def pytorch(precision: str, batch_size: int) -> dict[str, float]:
    import torch  # type: ignore[reportMissingImports]

    sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
    from pytorch_two_tower import TwoTower, optimizer_for, train_step

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as JAX does
    torch.backends.cudnn.benchmark = True
    images = torch.randint(0, 256, (batch_size, 3, 224, 224), dtype=torch.uint8, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.zeros(batch_size, dtype=torch.long, device=device)
    rates = {}
    for name, compiled in (("pytorch", False), ("pytorch_compiled", True)):
        model = TwoTower().to(device, memory_format=torch.channels_last)  # type: ignore[reportCallIssue]
        optimizer = optimizer_for(model)
        run: Any = torch.compile(model) if compiled else model

        def block(run=run, optimizer=optimizer) -> None:
            for _ in range(STEPS):
                with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
                    train_step(run, optimizer, images, labels)
            if device == "cuda":
                torch.cuda.synchronize()

        rates[name] = batch_size / seconds_a_call(block, STEPS, rounds=5)
    return rates
