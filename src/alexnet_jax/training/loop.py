"""Training, from an config and a data set to a run folder."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np

from alexnet_jax.console import console
from alexnet_jax.data.find import find_dataset
from alexnet_jax.data.pipeline.augment import Example, mean_to_subtract
from alexnet_jax.data.pipeline.batches import LoaderOptions, training_batches
from alexnet_jax.data.pipeline.loading import check_size
from alexnet_jax.errors import DivergedError, UserError
from alexnet_jax.parallel.distributed import (
    DistributedOptions,
    Request,
    RequestConsensus,
    check_same_settings,
    check_shared_filesystem,
    initialize_distributed,
    is_main_process,
    main_process_first,
    sync_processes,
)
from alexnet_jax.parallel.mesh import DATA, Placement, choose_mesh, local_batch_slice, replicated, to_global_array
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.flops import measure_matmul_flops, training_flops_per_image
from alexnet_jax.training.initialization import InitialModel, select_initial_layers
from alexnet_jax.training.optimizer import learning_rates, paper_update
from alexnet_jax.training.preemption import StopOnSignal
from alexnet_jax.training.progress import TimedIterator
from alexnet_jax.training.run_directory import RunDirectory, default_run_directory, run_config
from alexnet_jax.training.run_logger import RunLogger, format_result
from alexnet_jax.training.schedule import EpochHparams
from alexnet_jax.training.step import (
    StepHparams,
    TrainMetrics,
    initial_state,
    make_evaluation_step,
    make_train_step,
    put_batch,
    state_shardings,
)
from alexnet_jax.training.validation import EvalMetrics, validate


@dataclass(frozen=True)
class Options:
    """Where and how to run, none of which changes what is learned.

    Attributes:
      data: a folder of images, a prepared folder, or a name in `data_dir`; None is the config's own.
      data_dir: folder of prepared data sets.
      runs_dir: folder of run folders.
      run: run folder; None is one that follows from the settings.
      fresh: start over, deleting what the run folder holds.
      placement: "split" gives each tower devices of its own, "single" runs all towers on every device.
      devices: how many devices to use, of each process; None is all GPUs, or a CPU device for each tower.
      threads: threads that decode images; None is one a core, or one in each of the `workers`.
      workers: processes that decode images instead of this one; the batches are the same.
      checkpoint_seconds: time between checkpoints.
      tensorboard: whether the log is written for TensorBoard, too, in the run folder.
      processes: of several that train as one, which this is.
    """

    data: str | None = None
    data_dir: Path = Path("data")
    runs_dir: Path = Path("runs")
    run: Path | None = None
    fresh: bool = False
    placement: Placement = "auto"
    devices: int | None = None
    threads: int | None = None
    workers: int = 0
    checkpoint_seconds: float = 120.0
    tensorboard: bool = False
    processes: DistributedOptions = field(default_factory=DistributedOptions)


def train(name: str, config: TrainConfig, options: Options, initial_model: InitialModel | None = None) -> Path:
    """Train until the last epoch, the end of the schedule or a stop signal, resuming an earlier run with the same settings.

    Args:
      name: name of the config, which names the run folder.
      config: what is trained, and how.
      options: where and how to run it.
      initial_model: the trained network at `config.init_from`, as `load` returns it. A run that has a checkpoint does not need
        it any more.

    Returns:
      The run folder, with `result.json` if training is finished.

    Raises:
      UserError: for settings, data or a disk that training cannot work with.
      DivergedError: for a non-finite loss.
    """
    initialize_distributed(options.processes)
    training = Training(name, config, options, initial_model)
    result = training.run.result
    if result is not None and (result["ended_by_schedule"] or result["steps"] >= training.steps):
        more_epochs = "" if result["ended_by_schedule"] else ", a larger --epochs to continue it"
        console.print(f"{training.run.folder} is finished: {format_result(result)}. Pass --fresh to train it again{more_epochs}.")
    else:
        training.start()
        if training.loop():
            training.finish()
    sync_processes("end of training")
    return training.run.folder


def existing_runs(name: str, options: Options) -> Path | None:
    """Return the run folder, or the folder of run folders, in which this training may have started; None with `fresh`."""
    return None if options.fresh else options.run or options.runs_dir / name


class Training:
    """A training in progress. The constructor checks the settings; `start` creates or restores the state; `loop` updates it."""

    def __init__(self, name: str, config: TrainConfig, options: Options, initial_model: InitialModel | None = None):
        if config.init_layers and config.init_from is None:
            layers = ", ".join(config.init_layers)
            raise UserError(f"{name} copies {layers} from a trained network: name it with --init-from RUN")
        self._name, self._config, self._options = name, config, options
        self._mesh = choose_mesh(config.network, options.placement, options.devices)
        console.quiet = not is_main_process()
        with main_process_first("prepare data"):
            self._dataset = find_dataset(options.data, config.default_data, options.data_dir)
        self._network = config.network.with_num_classes(len(self._dataset.manifest.classes))
        image_size, data_parallelism = config.augmentation.image_size, self._mesh.shape[DATA]
        if image_size < self._network.input_size:
            raise UserError(f"images of {image_size} pixels are too small for {name}, which takes {self._network.input_size}")
        check_size(self._dataset, config.augmentation.image_size)
        if config.batch_size % data_parallelism:
            raise UserError(
                f"a batch of {config.batch_size} images cannot be split evenly over {data_parallelism} devices: "
                "change --batch-size or --devices"
            )
        self._split = self._dataset.evaluation_split
        self._steps_per_epoch = max(1, self._dataset.manifest.splits["train"] // config.batch_size)
        self.steps = config.epochs * self._steps_per_epoch
        self._initial_layers = select_initial_layers(
            config, self._network, self._dataset.manifest.classes, initial_model, existing_runs(name, options)
        )
        self._record = run_config(config, self._network, self._dataset, self._initial_layers and self._initial_layers.record)
        folder = options.run or default_run_directory(options.runs_dir, name, self._dataset, self._record)
        with main_process_first("create run folder"):
            self.run = RunDirectory(folder, fresh=options.fresh, is_writer=is_main_process())
        check_same_settings([str(folder), self._record])
        check_shared_filesystem(folder)

    def start(self) -> None:
        """Reads the last checkpoint, or starts anew; makes the steps."""
        config, network, mesh = self._config, self._network, self._mesh
        decays = dict(config.layer_decays)
        optimizer = paper_update(momentum=config.momentum, weight_decay=config.weight_decay, layer_decays=decays)
        self._train_step = make_train_step(
            network,
            mesh,
            optimizer,
            seed=config.seed,
            color_divisor=config.augmentation.color_divisor,
            precision=config.precision,
        )
        self._evaluation_step = make_evaluation_step(network, mesh, precision=config.precision)
        mean = mean_to_subtract(self._dataset.mean_image, config.augmentation)
        self.run.write_mean_image(mean)
        self._mean = to_global_array(mean, replicated(mesh))

        self._state = initial_state(network, mesh, optimizer, config.seed)
        self._checkpoints = Checkpoints(self.run.checkpoints, self._record)
        shardings = state_shardings(mesh, self._state)
        like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), self._state, shardings)
        restored = self._checkpoints.restore(like)
        seconds_before = 0.0
        self._errors: list[float] = []  # top-1, after each epoch: all that the schedule goes by
        self._training_error = 0.0  # top-1 of the epoch's batches so far, each before the step it led to
        if restored is not None:
            self._state, about = restored
            seconds_before, self._errors, self._training_error = about["seconds"], about["errors"], about["training_error"]
        elif self._initial_layers is not None:
            self._state = self._initial_layers.copy_into(self._state)
        self._initial_layers = None  # free its memory
        self._began = time.monotonic() - seconds_before
        self._first_step = int(self._state.step)
        self._measured: EvalMetrics | None = None
        self._hparams: EpochHparams | None = None

        self._logger = RunLogger(
            self.run,
            self._name,
            config,
            self._dataset,
            mesh,
            start=self._first_step,
            steps_per_epoch=self._steps_per_epoch,
            image_flops=training_flops_per_image(network),
            matmul_flops=measure_matmul_flops(mesh, config.precision),
            tensorboard=self._options.tensorboard,
        )
        self._logger.start(self._record, epochs=len(self._errors))
        self._enter_epoch()
        if self._errors_due(self._first_step):  # what was asked to stop was the evaluation
            self._read_errors(self._first_step)
            self._enter_epoch()

    def loop(self) -> bool:
        """Takes the steps that are left; False if it was interrupted, with the state saved.

        Raises:
          UserError: DivergedError, for a loss that is no number any more, or for a disk without room for a checkpoint.
        """
        batches, saved, agreed = TimedIterator(self._batches()), time.monotonic(), RequestConsensus(self._mesh)
        late = None  # what a step measured is read when the step after it is under way, so that the device never waits
        # What crosses to the devices and back is asked for by name: a transfer that slipped in would be made at every step.
        with StopOnSignal() as interrupt, closing(self._checkpoints), self._logger, jax.transfer_guard("disallow"):
            for step in range(self._first_step + 1, self.steps + 1 if self._hparams else 0):
                batch = put_batch(next(batches), self._mesh)
                self._state, measured = self._train_step(self._state, batch, self._mean, self._step_hparams)
                if late is not None:
                    self._read_measured(*late)
                late = (step, measured)
                due = time.monotonic() - saved > self._options.checkpoint_seconds
                granted = agreed(Request.STOP if interrupt.asked else Request.SAVE if due else Request.NOTHING)
                stop = granted is Request.STOP or step == self.steps
                save = stop or granted is Request.SAVE
                epoch_ends = step % self._steps_per_epoch == 0
                if epoch_ends or save:
                    self._read_measured(*late)
                    late = None
                    self._logger.pause()
                if epoch_ends:
                    self._read_errors(step, lambda: interrupt.asked and jax.process_count() == 1)
                    self._enter_epoch()
                    stop = stop or self._hparams is None or self._errors_due(step)
                    save = save or stop or min(self._errors) == self._errors[-1]
                if save:
                    self._checkpoints.save(self._state, self._about(), best=self._best_step())
                    saved = time.monotonic()
                if stop:
                    break
            self._waiting = batches.share
        step = int(self._state.step)
        over = self._hparams is None or (step == self.steps and not self._errors_due(step))
        if not over:
            self._logger.interrupted(step, fresh=self._options.fresh)
        return over

    def finish(self) -> None:
        """Write the result."""
        measured = self._measured or self._measure()
        assert measured is not None
        training = {
            "epochs": len(self._errors),
            "steps": int(self._state.step),
            "best": {"step": self._best_step(), "top1_error": min(self._errors, default=None)},
            "ended_by_schedule": self._hparams is None,
            "seconds": time.monotonic() - self._began,
            "waiting_for_data": round(self._waiting, 4),
        }
        self._logger.finish(measured, training)

    def _batches(self) -> Iterator[Example]:
        return training_batches(
            self._dataset,
            self._config.augmentation,
            input_size=self._network.input_size,
            batch_size=self._config.batch_size,
            seed=self._config.seed,
            start=self._first_step,
            part=local_batch_slice(self._mesh, self._config.batch_size),
            readers=LoaderOptions(self._options.threads, self._options.workers),
        )

    def _enter_epoch(self) -> None:
        """Puts on the devices what holds in the epoch that begins, unless it held before."""
        hparams = self._config.epoch_hparams(self._errors)
        if hparams is not None and hparams != self._hparams:
            rates = learning_rates(self._state.params, hparams.weights, hparams.biases, hparams.layers)
            step_hparams = StepHparams(rates, np.bool_(hparams.color))
            self._step_hparams = to_global_array(step_hparams, replicated(self._mesh))
            if self._hparams is not None:
                self._logger.log_hparams(len(self._errors) + 1, hparams)
        self._hparams = hparams

    def _measure(self, stop: Callable[[], bool] = lambda: False) -> EvalMetrics | None:
        return validate(
            self._evaluation_step,
            self._state.params,
            self._mean,
            self._mesh,
            self._dataset,
            self._split,
            image_size=self._config.augmentation.image_size,
            input_size=self._network.input_size,
            batch_size=self._config.batch_size,
            stop=stop,
        )

    def _about(self) -> dict[str, Any]:
        """What a checkpoint holds besides the state."""
        seconds = time.monotonic() - self._began
        return {"seconds": seconds, "errors": self._errors, "training_error": self._training_error}

    def _errors_due(self, step: int) -> bool:
        """Whether an epoch has ended and its errors are not known."""
        return step // self._steps_per_epoch > len(self._errors)

    def _best_step(self) -> int | None:
        """The step after which the validation error was smallest, the last of them if there are several."""
        epochs = [epoch for epoch, error in enumerate(self._errors, 1) if error == min(self._errors)]
        return epochs[-1] * self._steps_per_epoch if epochs else None

    def _read_measured(self, step: int, measured: TrainMetrics) -> None:
        loss, error = (float(value) for value in jax.device_get((measured.loss, measured.top1_error)))
        if not math.isfinite(loss):
            # It is that of the parameters after the step before, which may have been saved: nobody knew yet what they are.
            self._give_up(f"the loss is {loss} at step {step}", first_bad=step - 1)
        self._training_error += error / self._steps_per_epoch
        self._logger.log_step(step, loss)

    def _read_errors(self, step: int, stop: Callable[[], bool] = lambda: False) -> None:
        measured = self._measure(stop)
        if measured is None:
            return
        if not math.isfinite(measured.loss):
            self._give_up(f"the {self._split} loss is {measured.loss} after step {step}", first_bad=step)
        self._measured = measured
        self._errors.append(measured.top1_error)
        assert self._hparams is not None
        self._logger.log_epoch(step, measured, self._hparams.weights, self._training_error)
        self._training_error = 0.0

    def _give_up(self, why: str, *, first_bad: int) -> NoReturn:
        good = self._checkpoints.drop_from(first_bad)
        kept = "there is no checkpoint yet" if good is None else f"the last good checkpoint, of step {good}, is kept"
        raise DivergedError(f"{why}: choose a lower --learning-rate; in {self.run.folder} {kept}")
