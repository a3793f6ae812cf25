"""Which devices a command runs on, how the towers share them, and what makes a CPU a good one."""

import contextlib
import ctypes
import os
from functools import cache
from pathlib import Path

import jax


def set_cpu_device_count(devices: int, *, data_parallel: bool = True) -> None:
    """Makes the CPU's cores pose as `devices` devices; call it before JAX looks at its devices.

    A device that waits for the others in a sum or a gather holds one of XLA's threads. With as few threads as cores, every one
    of them can come to wait for work that none is left to do, so there are more, but no more than needed: they get into each
    other's way. Where there are no more cores than devices, each device keeps to one thread, which is also faster than sharing.

    Args:
      devices: how many.
      data_parallel: whether devices sum gradients, for many of which they wait at once; towers alone wait for a few.
    """
    cores, several = os.cpu_count() or 1, jax.distributed.is_initialized()
    if devices > 1 or several:
        waiting = 8 if data_parallel or several else 1
        os.environ.setdefault("PJRT_NPROC", str(max(cores, (1 + waiting) * devices)))
    flags = os.environ.get("XLA_FLAGS", "")
    if devices > 1 and cores <= devices and _ONE_THREAD not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{_ONE_THREAD}=false".strip()
    with contextlib.suppress(RuntimeError):  # if JAX has started, whoever started it has chosen the number
        jax.config.update("jax_num_cpu_devices", devices)


_ONE_THREAD = "xla_cpu_multi_thread_eigen"


def enable_compilation_cache() -> None:
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


def retain_freed_memory() -> None:
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
