"""Settings of the process in which a command runs: the only place that changes any. The library uses the process as it is."""

import logging
import sys
from typing import Any

from alexnet_jax.parallel.distributed import initialize_distributed
from alexnet_jax.parallel.runtime import check_platform, configure_cpu, enable_compilation_cache
from alexnet_jax.training.config import Options


def configure_process(devices: int = 1, *, data_parallel: bool = True) -> None:
    """Configure JAX's devices on a CPU, malloc, the compilation cache and log levels; call before JAX is first used.

    Args:
      devices: number of virtual CPU devices.
      data_parallel: see `configure_cpu`.
    """
    enable_compilation_cache()
    configure_cpu(devices, data_parallel=data_parallel)
    check_platform()
    for name in ("absl", "asyncio"):  # Orbax logs every file and asyncio every array; errors are raised anyway
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.unraisablehook = _ignore_closed_event_loop


def configure_training(options: Options, towers: int) -> None:
    """Configure the process for training: its place among other processes, and one CPU device per tower by default.

    Args:
      options: data, devices, folders and logging.
      towers: number of towers of the network.
    """
    initialize_distributed(options.processes)
    single = options.placement == "single"
    devices = options.devices or (1 if single else towers)
    configure_process(devices, data_parallel=single or devices != towers)


def _ignore_closed_event_loop(unraisable: Any) -> None:
    """Suppress the errors of array writes that Orbax abandons after another array has failed to be written."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
