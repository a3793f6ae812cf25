"""`train`: train a config and write the report of the finished run."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from alexnet_jax.analysis.report import PAGE, write_training_report
from alexnet_jax.cli.parsing import parse
from alexnet_jax.cli.process import configure_training
from alexnet_jax.cli.schedule_options import ScheduleOptions
from alexnet_jax.configs import config_names, config_summary, load_config
from alexnet_jax.console import console
from alexnet_jax.errors import UserError
from alexnet_jax.parallel.distributed import is_main_process, sync_processes
from alexnet_jax.training.config import Options, TrainConfig
from alexnet_jax.training.initialization import recorded_initial_layers
from alexnet_jax.training.preemption import StopOnSignal
from alexnet_jax.training.run_directory import CONFIG, RunDirectory, existing_runs
from alexnet_jax.training.train import train
from alexnet_jax.training.variants import Variant
from alexnet_jax.weights.trained_model import TrainedModel, load, load_run_config

HELP = """usage: alexnet-jax train CONFIG [OPTIONS]

Train a config of the package, or a Python file that defines CONFIG, and write the report of the finished run.

configs:
{configs}

Run alexnet-jax train CONFIG --help for the options and the values that a config gives them."""


def run(arguments: list[str]) -> None:
    """Train a config; print the run folder and, of a finished run, the path of its report."""
    if arguments[:1] in (["-h"], ["--help"]):
        width = max(map(len, config_names()))
        lines = [f"  {name:{width}}  {config_summary(name)}" for name in config_names()]
        print(HELP.format(configs="\n".join(lines)))
        return
    if not arguments or arguments[0].startswith("-"):
        raise UserError(
            f"pass a config: alexnet-jax train CONFIG, one of {', '.join(config_names())}, or a Python file that defines CONFIG"
        )
    name, *arguments = arguments
    default = load_config(name)
    shown = ScheduleOptions.of(default) if {"-h", "--help"} & {*arguments} else ScheduleOptions()

    def command(
        config: Annotated[TrainConfig, tyro.conf.OmitArgPrefixes] = default,
        variant: Annotated[Variant, tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff] = Variant(),  # noqa: B008 (frozen)
        schedule: Annotated[ScheduleOptions, tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff] = shown,
        setup: Annotated[Options, tyro.conf.OmitArgPrefixes] = Options(),  # noqa: B008 (frozen)
        interrupted_exit_code: int = 0,
    ) -> tuple[Path, int]:
        """Train a network, and write the report of the finished run.

        Exit codes: 0 if training is finished, --interrupted-exit-code if it was stopped by Ctrl-C or SIGTERM and the same command
        resumes it, 1 after an error, 2 if the command line is invalid, and 130 if it was stopped by Ctrl-C before it started.

        Args:
          config: network and hyperparameters.
          variant: components to remove or replace.
          schedule: number of epochs and learning rate schedule.
          setup: data, devices, folders and logging.
          interrupted_exit_code: exit code of an interrupted training, to tell it from a finished one; for example, 75.
        """
        configure_training(setup, 1 if variant.one_gpu else default.network.towers)
        # Restore the network, because the config that tyro rebuilds lacks the names of its layers.
        config = variant.apply(replace(config, network=default.network))
        if schedule.keep_schedule and not setup.fresh:
            config = _with_schedule_of_run(config, setup.run)
        if is_main_process():
            for line in schedule.notes(config):
                console.print(line)
        return train_with_report(variant.named(Path(name).stem), schedule.apply(config), setup), interrupted_exit_code

    folder, exit_code = parse(command, f"train {name}", arguments, (tyro.conf.SuppressFixed,))
    finished = RunDirectory(folder).result is not None
    if is_main_process():
        print(folder)
        if finished:
            print(folder / PAGE)
    if exit_code and not finished:
        sys.exit(exit_code)


def _with_schedule_of_run(config: TrainConfig, run: Path | None) -> TrainConfig:
    """Return the config with the schedule of an existing run; unchanged if there is no such run."""
    if run is None or not (run / CONFIG).is_file():
        return config
    training = load_run_config(run).training or config
    return replace(config, schedule=training.schedule, layer_rates=training.layer_rates, color_epochs=training.color_epochs)


def train_with_report(name: str, config: TrainConfig, options: Options) -> Path:
    """Train a config, initialized from `config.init_from` if given, until Ctrl-C or SIGTERM, and report on the finished run.

    The arguments and errors are those of `training.train.train`.

    Returns:
      The run folder.
    """
    with StopOnSignal() as should_stop:
        result = train(name, config, options, _initial_model(name, config, options), should_stop=should_stop)
    if result.finished:
        write_training_report(result.run)
    sync_processes("report")
    return result.run


def _initial_model(name: str, config: TrainConfig, options: Options) -> TrainedModel | None:
    """Return the network at `config.init_from`; None if it cannot be loaded, but an earlier run was initialized from it."""
    if config.init_from is None:
        return None
    try:
        return load(config.init_from)
    except UserError:
        if recorded_initial_layers(config, existing_runs(name, options)) is None:
            raise
        return None
