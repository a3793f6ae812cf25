"""Which devices a command runs on, and how the towers share them."""

import contextlib
import os
from typing import Literal

import jax
from jax.sharding import Mesh

from alexnet_jax.architectures import Network
from alexnet_jax.errors import UserError
from alexnet_jax.placement import make_mesh

Placement = Literal["auto", "split", "single"]


def choose_mesh(network: Network, placement: Placement = "auto", devices: int | None = None) -> Mesh:
    """The mesh to train on.

    Args:
      network: whose towers are to be placed.
      placement: "split" gives each tower devices of its own, "single" runs all towers on every device; "auto" splits where
        the devices can be divided evenly among the towers.
      devices: how many of each process to use; None takes every GPU, or as many CPU devices as there are towers. The CPU's
        cores can pose as any number of devices; on two cores, towers on two of them train faster than on one
        (experiments/results/placement.json).

    Raises:
      UserError: if there are too few devices, or "split" cannot divide them.
    """
    if devices is not None or placement != "single":
        pose_as(devices or network.towers)
    if devices is None and jax.default_backend() == "cpu":
        devices = 1 if placement == "single" else network.towers
    used = []
    for process in range(jax.process_count()):
        found = jax.local_devices(process_index=process)
        if devices is not None and devices > len(found):
            raise UserError(f"{devices} devices are asked for, and there are {len(found)}: {', '.join(map(str, found))}")
        used += found[:devices]
    split = placement == "split" or (placement == "auto" and network.towers > 1 and len(used) % network.towers == 0)
    try:
        return make_mesh(network, used, split_towers=split)
    except ValueError as error:
        raise UserError(f"{error}: choose another number with --devices, or --placement single") from error


def pose_as(devices: int) -> None:
    """Makes the CPU's cores pose as `devices` devices; call it before JAX looks at its devices.

    A tower that waits in an all-gather holds one of XLA's threads. With as few threads as cores, every one of them can come
    to wait for work that none is left to do, so there are more. Where there are no more cores than devices, each device
    keeps to one thread, which is also faster than sharing.
    """
    cores = os.cpu_count() or 1
    os.environ.setdefault("PJRT_NPROC", str(max(cores, 8 * devices)))
    flags = os.environ.get("XLA_FLAGS", "")
    if devices > 1 and cores <= devices and _ONE_THREAD not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{_ONE_THREAD}=false".strip()
    with contextlib.suppress(RuntimeError):  # if JAX has started, whoever started it has chosen the number
        jax.config.update("jax_num_cpu_devices", devices)


_ONE_THREAD = "xla_cpu_multi_thread_eigen"
