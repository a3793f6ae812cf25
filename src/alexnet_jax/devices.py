"""Which devices a command runs on, how the towers share them, and what makes a CPU a good one."""

import contextlib
import ctypes
import os
from functools import cache
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
      devices: how many to use; None takes every GPU, or as many CPU devices as there are towers. The CPU's cores can pose as
        any number of devices; how the two compare is in experiments/results/bench.json.

    Raises:
      UserError: if there are too few devices, or "split" cannot divide them.
    """
    if devices is not None or placement != "single":
        pose_as(devices or network.towers, sums_at_once=1 if placement != "single" and devices in (None, network.towers) else 8)
    keep_memory()
    found = jax.devices()
    if devices is None:
        devices = len(found) if found[0].platform != "cpu" else 1 if placement == "single" else network.towers
    if devices > len(found):
        raise UserError(f"{devices} devices are asked for, and there are {len(found)}: {', '.join(map(str, found))}")
    split = placement == "split" or (placement == "auto" and network.towers > 1 and devices % network.towers == 0)
    try:
        return make_mesh(network, found[:devices], split_towers=split)
    except ValueError as error:
        raise UserError(f"{error}: choose another number with --devices, or --placement single") from error


def pose_as(devices: int, *, sums_at_once: int = 8) -> None:
    """Makes the CPU's cores pose as `devices` devices; call it before JAX looks at its devices.

    A device that waits for the others in a sum or a gather holds one of XLA's threads. With as few threads as cores, every one
    of them can come to wait for work that none is left to do, so there are more, but no more than needed: they get into each
    other's way. Where there are no more cores than devices, each device keeps to one thread, which is also faster than sharing.

    Args:
      devices: how many.
      sums_at_once: of a device that may be waited for together; the gradients' where images are divided, else one.
    """
    cores = os.cpu_count() or 1
    if devices > 1:
        os.environ.setdefault("PJRT_NPROC", str(max(cores, (1 + sums_at_once) * devices)))
    flags = os.environ.get("XLA_FLAGS", "")
    if devices > 1 and cores <= devices and _ONE_THREAD not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{_ONE_THREAD}=false".strip()
    with contextlib.suppress(RuntimeError):  # if JAX has started, whoever started it has chosen the number
        jax.config.update("jax_num_cpu_devices", devices)


_ONE_THREAD = "xla_cpu_multi_thread_eigen"


def keep_memory() -> None:
    """Has glibc keep the memory that arrays leave for those that come after them; call it before threads have their own.

    Otherwise each step asks the system for its memory anew, page by page: a fifth of the time of the paper's network on two
    cores.
    """
    with contextlib.suppress(AttributeError):  # other systems have no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in _KEEP:
            mallopt(option, value)


_KEEP = ((-8, 1), (-4, 0), (-1, -1))
"""M_ARENA_MAX, one arena for all threads; M_MMAP_MAX, nothing mapped apart; M_TRIM_THRESHOLD, nothing given back (malloc.h)."""


@cache
def compiler_options(platform: str) -> dict[str, str]:
    """What to pass to `jax.jit` of a training or evaluation step.

    On a CPU, convolutions that Eigen computes rather than YNNPACK: on two cores the paper's step is faster by a sixth.
    """
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}
    if platform != "cpu":
        return {}
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # an experimental option: a later XLA may not have it
        return {}
    return options
