"""Settings of the process in which a command runs. No other module of the package changes any."""

import logging
import os
import sys
import warnings
from typing import Any

import jax

from alexnet_jax.console import console
from alexnet_jax.errors import UserError
from alexnet_jax.parallel.distributed import DistributedOptions, initialize_distributed, is_main_process
from alexnet_jax.parallel.runtime import bind_threads, check_platform, configure_cpu, enable_compilation_cache
from alexnet_jax.training.config import Options

_UNSUPPORTED = {
    "jax_disable_jit": (True,),  # a step would take minutes
    "jax_check_tracer_leaks": (True,),
    "jax_numpy_dtype_promotion": ("strict",),
    "jax_numpy_rank_promotion": ("raise",),
    "jax_transfer_guard": ("disallow", "disallow_explicit"),
}
"""Values of JAX's settings, for debugging, with which training or evaluation fails."""


def configure_process(devices: int = 1, *, data_parallel: bool = True) -> None:
    """Configure JAX's CPU devices and threads, malloc, the compilation cache and log levels; call before JAX is first used.

    Raises:
      UserError: if there are too many devices for the CPUs, JAX has none, or an environment variable of JAX has a value that the
        commands do not support.
    """
    for name, unsupported in _UNSUPPORTED.items():
        if getattr(jax.config, name) in unsupported:
            raise UserError(f"{name.upper()} is {getattr(jax.config, name)}, which the commands do not support: unset it")
    enable_compilation_cache()
    configure_cpu(devices, data_parallel=data_parallel)
    check_platform()
    bind_threads()
    for name in ("absl", "asyncio"):  # Orbax logs every file and asyncio every array; errors are raised anyway
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.unraisablehook = _ignore_closed_event_loop
    warnings.showwarning = _print_warning


def configure_training(options: Options, towers: int) -> None:
    """Configure the process for training: its place among other processes, and its CPU devices.

    There is one CPU device by default, or one per tower if there are several processes, so that each has all towers.
    """
    initialize_distributed(options.processes)
    split = options.placement == "split" or (options.placement == "auto" and jax.distributed.is_initialized())
    devices = options.devices or (towers if split else 1)
    configure_process(devices, data_parallel=options.placement == "single" or devices != towers)


def configure_inference(devices: int | None, processes: DistributedOptions) -> None:
    """Configure the process for inference: its place among other processes, and one CPU device by default.

    Only process 0 prints messages afterwards; it should also be the only one that prints results and writes files.

    Args:
      devices: number of devices to use in every process; None uses all GPUs, or one CPU device.
      processes: coordinator, number of processes and index of this one.

    Raises:
      UserError: if an option is invalid, or the processes cannot be connected.
    """
    initialize_distributed(processes)
    configure_process(1 if devices is None else devices, data_parallel=False)
    console.quiet = not is_main_process()
    if jax.process_count() > 1:
        _reserve_stdout()


def _reserve_stdout() -> None:
    """Redirect what C++ libraries print on stdout to stderr, because other programs read the results there.

    Gloo and NCCL, which connect the processes, print messages on stdout.
    """
    sys.stdout.flush()
    results = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(results, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning of a library in one line, without its place in the source code."""
    line = " ".join(str(message).split())
    if "persistent compilation cache" in line:  # JAX warns in every run, and does not replace a damaged file
        folder = jax.config.jax_compilation_cache_dir  # type: ignore[reportAttributeAccessIssue]
        line = f"the compilation cache cannot be used, so that starting takes longer ({line}): delete {folder}"
    console.print(f"warning: {line}", style="yellow")


def _ignore_closed_event_loop(unraisable: Any) -> None:
    """Suppress errors that follow one that has been raised: of array writes that Orbax abandons after another one has failed, and
    of an event loop that could not be created, for lack of file descriptors.
    """
    of_loop = getattr(unraisable.object, "__qualname__", "") == "BaseEventLoop.__del__"
    if not of_loop and str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
