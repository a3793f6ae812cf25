"""Training from a config to a result: setup, loop, result."""

from collections.abc import Callable
from contextlib import closing

from alexnet_jax.parallel.distributed import initialize_distributed, sync_processes
from alexnet_jax.training.config import Options, TrainConfig
from alexnet_jax.training.initialization import InitialModel
from alexnet_jax.training.loop import run_loop
from alexnet_jax.training.result import TrainResult, finished_result
from alexnet_jax.training.setup import setup


def train(
    name: str,
    config: TrainConfig,
    options: Options,
    initial_model: InitialModel | None = None,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train until the last epoch, the end of the schedule or a stop request, resuming an earlier run with the same settings.

    Trains on the devices that JAX has, in any thread, and changes no setting of the process: call `configure_cpu` first to run
    on several CPU devices, and pass a `StopOnSignal` as `should_stop` to stop on Ctrl-C and SIGTERM.

    Args:
      name: name of the config; run folders are created in a folder of this name.
      config: training config.
      options: data, devices, folders and logging.
      initial_model: the trained network at `config.init_from`, as returned by `load`; None if `config.init_from` is None, or if
        the network is no longer available and the run already has a checkpoint.
      should_stop: called after every step, and before every batch of a validation; if it returns True, the state is saved and
        training ends.

    Returns:
      The run folder, and whether training is finished or was interrupted.

    Raises:
      UserError: if the settings or the data are invalid, or the disk is full.
      DivergedError: if the loss is not finite.
    """
    initialize_distributed(options.processes)
    context = setup(name, config, options, initial_model)
    with closing(context.run):
        result = finished_result(context) or run_loop(context, should_stop)
    sync_processes("end of training")
    return result
