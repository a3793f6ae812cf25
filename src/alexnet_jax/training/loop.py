"""Training loop with checkpoints, validation after every epoch, and resumption."""

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
from alexnet_jax.data.pipeline.augment import Example, resize_mean_image
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
    """Options of a training run besides its config: data, devices, folders and logging.

    Attributes:
      data: a folder of images, a prepared data set, or a name in `data_dir`; None uses the config's default data set.
      data_dir: folder of prepared data sets.
      runs_dir: folder of run folders.
      run: run folder; None uses a folder in `runs_dir` named after the config, the data and a hash of the settings.
      fresh: start over, deleting the contents of the run folder.
      placement: "split" runs every tower on its own devices, "single" runs all towers on every device, and "auto" splits the
        towers if the number of devices is a multiple of the number of towers.
      devices: number of devices to use in each process; None uses all GPUs, or one CPU device per tower.
      threads: number of threads that decode images; None uses one per core, or one in each of the `workers`.
      workers: number of processes that decode images; 0 decodes in this process. The batches do not depend on this number.
      checkpoint_seconds: seconds between checkpoints.
      tensorboard: also write the log to the run folder as TensorBoard events.
      processes: arguments of multi-process training: coordinator, number of processes and index of this one.
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
      name: name of the config; run folders are created in a folder of this name.
      config: training config.
      options: data, devices, folders and logging.
      initial_model: the trained network at `config.init_from`, as returned by `load`; None if `config.init_from` is None, or if
        the network is no longer available and the run already has a checkpoint.

    Returns:
      The run folder; it contains `result.json` if training is finished.

    Raises:
      UserError: if the settings or the data are invalid, or the disk is full.
      DivergedError: if the loss is not finite.
    """
    initialize_distributed(options.processes)
    training = Training(name, config, options, initial_model)
    result = training.run.result
    if result is not None and (result["ended_by_schedule"] or result["steps"] >= training.steps):
        more_epochs = "" if result["ended_by_schedule"] else ", or a larger --epochs to continue"
        console.print(f"{training.run.folder} is finished: {format_result(result)}. Pass --fresh to train it again{more_epochs}.")
    else:
        training.start()
        if training.loop():
            training.finish()
    sync_processes("end of training")
    return training.run.folder


def existing_runs(name: str, options: Options) -> Path | None:
    """Return the folder to search for earlier runs: the run folder, or the folder of the config's runs; None with `fresh`."""
    return None if options.fresh else options.run or options.runs_dir / name


class Training:
    """Training state and loop. The constructor checks the settings; `start` creates or restores the state; `loop` updates it.

    The arguments and errors are those of `train`.

    Attributes:
      run: run folder.
      steps: total number of training steps.
    """

    def __init__(self, name: str, config: TrainConfig, options: Options, initial_model: InitialModel | None = None):
        if config.init_layers and config.init_from is None:
            layers = ", ".join(config.init_layers)
            raise UserError(f"{name} needs a trained network to copy {layers} from: pass --init-from RUN")
        self._name, self._config, self._options = name, config, options
        self._mesh = choose_mesh(config.network, options.placement, options.devices)
        console.quiet = not is_main_process()
        with main_process_first("prepare data"):
            self._dataset = find_dataset(options.data, config.default_data, options.data_dir)
        self._network = config.network.with_num_classes(len(self._dataset.manifest.classes))
        image_size, data_parallelism = config.augmentation.image_size, self._mesh.shape[DATA]
        if image_size < self._network.input_size:
            raise UserError(
                f"images of {image_size} pixels are too small for {name}, whose input size is {self._network.input_size}: "
                "choose a larger --image-size"
            )
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
        """Build the jitted steps, and restore the latest checkpoint or initialize the state."""
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
        mean = resize_mean_image(self._dataset.mean_image, config.augmentation)
        self.run.write_mean_image(mean)
        self._mean = to_global_array(mean, replicated(mesh))

        self._state = initial_state(network, mesh, optimizer, config.seed)
        self._checkpoints = Checkpoints(self.run.checkpoints, self._record)
        shardings = state_shardings(mesh, self._state)
        like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), self._state, shardings)
        restored = self._checkpoints.restore(like)
        elapsed = 0.0
        self._errors: list[float] = []  # validation top-1 error after each epoch
        self._training_error = 0.0  # sum of the epoch's training top-1 errors so far / steps per epoch
        if restored is not None:
            self._state, metadata = restored
            elapsed, self._errors, self._training_error = metadata["seconds"], metadata["errors"], metadata["training_error"]
        elif self._initial_layers is not None:
            self._state = self._initial_layers.copy_into(self._state)
        self._initial_layers = None  # free its memory
        self._start_time = time.monotonic() - elapsed
        self._first_step = int(self._state.step)
        self._eval_metrics: EvalMetrics | None = None
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
        self._update_hparams()
        if self._validation_due(self._first_step):  # the run was stopped during validation
            self._validate_epoch(self._first_step)
            self._update_hparams()

    def loop(self) -> bool:
        """Run the remaining training steps.

        Returns:
          True if training is finished; False if it was interrupted, with its state saved.

        Raises:
          DivergedError: if the loss is not finite.
          UserError: if the disk is full.
        """
        batches, save_time, consensus = TimedIterator(self._batches()), time.monotonic(), RequestConsensus(self._mesh)
        pending = None  # fetch the metrics of a step after dispatching the next step, so that the device never waits
        # The transfer guard rejects implicit transfers, which would be repeated in every step.
        with StopOnSignal() as stop_signal, closing(self._checkpoints), self._logger, jax.transfer_guard("disallow"):
            for step in range(self._first_step + 1, self.steps + 1 if self._hparams else 0):
                batch = put_batch(next(batches), self._mesh)
                self._state, metrics = self._train_step(self._state, batch, self._mean, self._step_hparams)
                if pending is not None:
                    self._log_train_metrics(*pending)
                pending = (step, metrics)
                save_due = time.monotonic() - save_time > self._options.checkpoint_seconds
                request = consensus(Request.STOP if stop_signal.requested else Request.SAVE if save_due else Request.NONE)
                stop = request is Request.STOP or step == self.steps
                save = stop or request is Request.SAVE
                epoch_ends = step % self._steps_per_epoch == 0
                if epoch_ends or save:
                    self._log_train_metrics(*pending)
                    pending = None
                    self._logger.pause()
                if epoch_ends:
                    self._validate_epoch(step, lambda: stop_signal.requested and jax.process_count() == 1)
                    self._update_hparams()
                    stop = stop or self._hparams is None or self._validation_due(step)
                    save = save or stop or min(self._errors) == self._errors[-1]
                if save:
                    self._checkpoints.save(self._state, self._checkpoint_metadata(), best_step=self._best_step())
                    save_time = time.monotonic()
                if stop:
                    break
            self._data_wait_fraction = batches.wait_fraction
        step = int(self._state.step)
        finished = self._hparams is None or (step == self.steps and not self._validation_due(step))
        if not finished:
            self._logger.interrupted(step, fresh=self._options.fresh)
        return finished

    def finish(self) -> None:
        """Validate if necessary, and write result.json."""
        metrics = self._eval_metrics or self._validate()
        assert metrics is not None
        summary = {
            "epochs": len(self._errors),
            "steps": int(self._state.step),
            "best": {"step": self._best_step(), "top1_error": min(self._errors, default=None)},
            "ended_by_schedule": self._hparams is None,
            "seconds": time.monotonic() - self._start_time,
            "data_wait_fraction": round(self._data_wait_fraction, 4),
        }
        self._logger.finish(metrics, summary)

    def _batches(self) -> Iterator[Example]:
        return training_batches(
            self._dataset,
            self._config.augmentation,
            input_size=self._network.input_size,
            batch_size=self._config.batch_size,
            seed=self._config.seed,
            start=self._first_step,
            batch_slice=local_batch_slice(self._mesh, self._config.batch_size),
            loader_options=LoaderOptions(self._options.threads, self._options.workers),
        )

    def _update_hparams(self) -> None:
        """Transfer the hyperparameters of the next epoch to the devices if they have changed."""
        hparams = self._config.epoch_hparams(self._errors)
        if hparams is not None and hparams != self._hparams:
            rates = learning_rates(self._state.params, hparams.weights, hparams.biases, hparams.layers)
            step_hparams = StepHparams(rates, np.bool_(hparams.color))
            self._step_hparams = to_global_array(step_hparams, replicated(self._mesh))
            if self._hparams is not None:
                self._logger.log_hparams(len(self._errors) + 1, hparams)
        self._hparams = hparams

    def _validate(self, stop: Callable[[], bool] = lambda: False) -> EvalMetrics | None:
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

    def _checkpoint_metadata(self) -> dict[str, Any]:
        """Return the metadata that a checkpoint needs, besides the state, to resume training."""
        seconds = time.monotonic() - self._start_time
        return {"seconds": seconds, "errors": self._errors, "training_error": self._training_error}

    def _validation_due(self, step: int) -> bool:
        """Return whether the epoch that ends at `step` has not been validated."""
        return step // self._steps_per_epoch > len(self._errors)

    def _best_step(self) -> int | None:
        """Return the last step of the epoch with the smallest validation error, the latest such epoch if there are several."""
        epochs = [epoch for epoch, error in enumerate(self._errors, 1) if error == min(self._errors)]
        return epochs[-1] * self._steps_per_epoch if epochs else None

    def _log_train_metrics(self, step: int, metrics: TrainMetrics) -> None:
        loss, error = (float(value) for value in jax.device_get((metrics.loss, metrics.top1_error)))
        if not math.isfinite(loss):
            # The loss was computed with the parameters of the previous step, which may already have been saved.
            self._raise_diverged(f"the training loss is {loss} at step {step}", first_bad_step=step - 1)
        self._training_error += error / self._steps_per_epoch
        self._logger.log_step(step, loss)

    def _validate_epoch(self, step: int, stop: Callable[[], bool] = lambda: False) -> None:
        """Compute and log the validation metrics of the epoch that ends at `step`, unless `stop` cancels validation."""
        metrics = self._validate(stop)
        if metrics is None:
            return
        if not math.isfinite(metrics.loss):
            self._raise_diverged(f"the {self._split} loss is {metrics.loss} after step {step}", first_bad_step=step)
        self._eval_metrics = metrics
        self._errors.append(metrics.top1_error)
        assert self._hparams is not None
        self._logger.log_epoch(step, metrics, self._hparams.weights, self._training_error)
        self._training_error = 0.0

    def _raise_diverged(self, reason: str, *, first_bad_step: int) -> NoReturn:
        """Delete the checkpoints of `first_bad_step` and later, and raise `DivergedError`."""
        last_step = self._checkpoints.delete_from(first_bad_step)
        kept = "no checkpoint was saved" if last_step is None else f"the last good checkpoint is that of step {last_step}"
        raise DivergedError(f"{reason}: choose a lower --learning-rate ({kept} in {self.run.folder})")
