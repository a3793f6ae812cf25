"""Which devices a command runs on, how the towers share them, and what makes a CPU a good one."""

import contextlib
import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Literal

import jax
from jax.sharding import Mesh

from alexnet_jax.errors import UserError
from alexnet_jax.network import Network
from alexnet_jax.placement import make_mesh

Placement = Literal["auto", "split", "single"]
"""Each tower on devices of its own ("split"), or all towers on every device ("single"); "auto" splits where it can."""


def choose_mesh(network: Network, placement: Placement = "auto", devices: int | None = None) -> Mesh:
    """The mesh to train on.

    Args:
      network: whose towers are to be placed.
      placement: "split" gives each tower devices of its own, "single" runs all towers on every device; "auto" splits where
        the devices can be divided evenly among the towers.
      devices: how many of each process to use; None takes every GPU, or as many CPU devices as there are towers. The CPU's
        cores can pose as any number of devices; how one and two compare is in experiments/results/bench.json.

    Raises:
      UserError: if there are too few devices, or "split" cannot divide them.
    """
    if devices is not None or placement != "single":
        pose_as(devices or network.towers, images_divided=placement == "single" or devices not in (None, network.towers))
    keep_memory()
    if devices is None and jax.default_backend() == "cpu":
        # Who has used JAX before, in a program or a notebook, may have only one: both towers run there unless told otherwise.
        few = placement == "auto" and jax.local_device_count() < network.towers
        devices = 1 if placement == "single" or few else network.towers
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


def pose_as(devices: int, *, images_divided: bool = True) -> None:
    """Makes the CPU's cores pose as `devices` devices; call it before JAX looks at its devices.

    A device that waits for the others in a sum or a gather holds one of XLA's threads. With as few threads as cores, every one
    of them can come to wait for work that none is left to do, so there are more, but no more than needed: they get into each
    other's way. Where there are no more cores than devices, each device keeps to one thread, which is also faster than sharing.

    Args:
      devices: how many.
      images_divided: whether devices sum gradients, for many of which they wait at once; towers alone wait for a few.
    """
    cores, several = os.cpu_count() or 1, jax.distributed.is_initialized()
    if devices > 1 or several:
        waiting = 8 if images_divided or several else 1
        os.environ.setdefault("PJRT_NPROC", str(max(cores, (1 + waiting) * devices)))
    flags = os.environ.get("XLA_FLAGS", "")
    if devices > 1 and cores <= devices and _ONE_THREAD not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{_ONE_THREAD}=false".strip()
    with contextlib.suppress(RuntimeError):  # if JAX has started, whoever started it has chosen the number
        jax.config.update("jax_num_cpu_devices", devices)


_ONE_THREAD = "xla_cpu_multi_thread_eigen"


def keep_programs() -> None:
    """Keeps compiled programs in the user's cache folder, so that the same training starts sooner the next time.

    JAX knows them by all that they depend on: the program, versions, flags, the kind of device and, of a CPU, its instructions.
    A folder given to JAX stays what it is, and where none can be written everything works, only later.
    """
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[reportAttributeAccessIssue]
        with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: who has no home
            folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alexnet-jax"
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                jax.config.update("jax_compilation_cache_dir", str(folder))
                jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # a training has few programs, none large


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
