"""Training, from an experiment and a data set to a run folder."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np

from alexnet_jax import placement
from alexnet_jax.checkpoint import Checkpoints
from alexnet_jax.console import console
from alexnet_jax.data.augment import Example, mean_to_subtract
from alexnet_jax.data.loading import check_size
from alexnet_jax.data.locate import find_dataset
from alexnet_jax.data.pipeline import Readers, training_batches
from alexnet_jax.devices import Placement, choose_mesh
from alexnet_jax.errors import Diverged, UserError
from alexnet_jax.evaluate import Errors, evaluate
from alexnet_jax.experiment import Experiment
from alexnet_jax.interrupt import Interrupt
from alexnet_jax.optimizer import paper_update, rates
from alexnet_jax.peak import matmul_flops, training_flops
from alexnet_jax.pretrained import pretrained
from alexnet_jax.processes import (
    Agreement,
    Processes,
    Wish,
    check_settings,
    check_shared,
    first_before_others,
    is_first,
    meet,
    wait_for_all,
)
from alexnet_jax.progress import Timed
from alexnet_jax.report import Report, told
from alexnet_jax.run import Run, configuration, run_folder
from alexnet_jax.schedule import Stage
from alexnet_jax.step import Measured, Phase, initial_state, make_evaluation_step, make_train_step, put_batch, state_shardings


@dataclass(frozen=True)
class Options:
    """Where and how to run, none of which changes what is learned.

    Attributes:
      data: a folder of images, a prepared folder, or a name in `data_dir`; None is the experiment's own.
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
    processes: Processes = field(default_factory=Processes)


def train(name: str, experiment: Experiment, options: Options) -> Path:
    """Trains until the last epoch, the end of the schedule or an interrupt, from where an earlier call stopped.

    Returns:
      The run folder, with `result.json` if training is finished.

    Raises:
      UserError: for settings, data or a disk that training cannot work with; Diverged for a loss that is no number any more.
    """
    meet(options.processes)
    training = Training(name, experiment, options)
    result = training.run.result
    if result is not None and (result["ended_by_schedule"] or result["steps"] >= training.steps):
        longer = "" if result["ended_by_schedule"] else ", --epochs longer"
        console.print(f"{training.run.folder} is finished: {told(result)}; --fresh trains it again{longer}")
    else:
        training.start()
        if training.loop():
            training.finish()
    wait_for_all("the end")
    return training.run.folder


class Training:
    """A training under way. The constructor checks the settings; `start` reads or makes the state; `loop` changes it."""

    def __init__(self, name: str, experiment: Experiment, options: Options):
        self._name, self._experiment, self._options = name, experiment, options
        self._mesh = choose_mesh(experiment.network, options.placement, options.devices)
        console.quiet = not is_first()
        with first_before_others("data"):
            self._dataset = find_dataset(options.data, experiment.default_data, options.data_dir)
        self._network = experiment.network.with_classes(len(self._dataset.manifest.classes))
        image_size, parts = experiment.augmentation.image_size, self._mesh.shape[placement.DATA]
        if image_size < self._network.input_size:
            raise UserError(f"images of {image_size} pixels are too small for {name}, which takes {self._network.input_size}")
        check_size(self._dataset, experiment.augmentation.image_size)
        if experiment.batch_size % parts:
            batch = f"a batch of {experiment.batch_size} images"
            raise UserError(f"{batch} cannot be divided among {parts} devices: choose --batch-size or --devices")
        self._split = self._dataset.evaluation_split
        self._steps_per_epoch = max(1, self._dataset.manifest.splits["train"] // experiment.batch_size)
        self.steps = experiment.epochs * self._steps_per_epoch
        begun = None if options.fresh else options.run or options.runs_dir / name
        self._pretrained = pretrained(experiment, self._network, self._dataset.manifest.classes, begun)
        self._config = configuration(experiment, self._network, self._dataset, self._pretrained and self._pretrained.about)
        folder = options.run or run_folder(options.runs_dir, name, self._dataset, self._config)
        with first_before_others("run"):
            self.run = Run(folder, fresh=options.fresh, writes=is_first())
        check_settings([str(folder), self._config])
        check_shared(folder)

    def start(self) -> None:
        """Reads the last checkpoint, or starts anew; makes the steps."""
        experiment, network, mesh = self._experiment, self._network, self._mesh
        decays = dict(experiment.layer_decays)
        optimizer = paper_update(momentum=experiment.momentum, weight_decay=experiment.weight_decay, layer_decays=decays)
        self._train_step = make_train_step(
            network,
            mesh,
            optimizer,
            seed=experiment.seed,
            color_divisor=experiment.augmentation.color_divisor,
            precision=experiment.precision,
        )
        self._evaluation_step = make_evaluation_step(network, mesh, precision=experiment.precision)
        mean = mean_to_subtract(self._dataset.mean_image, experiment.augmentation)
        self.run.write_mean_image(mean)
        self._mean = placement.put(mean, placement.replicated(mesh))

        self._state = initial_state(network, mesh, optimizer, experiment.seed)
        self._checkpoints = Checkpoints(self.run.checkpoints, self._config)
        shardings = state_shardings(mesh, self._state)
        like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), self._state, shardings)
        restored = self._checkpoints.restore(like)
        seconds_before = 0.0
        self._errors: list[float] = []  # top-1, after each epoch: all that the schedule goes by
        self._training_error = 0.0  # top-1 of the epoch's batches so far, each before the step it led to
        if restored is not None:
            self._state, about = restored
            seconds_before, self._errors, self._training_error = about["seconds"], about["errors"], about["training_error"]
        elif self._pretrained is not None:
            self._state = self._pretrained.put_into(self._state)
        self._pretrained = None  # which may be large
        self._began = time.monotonic() - seconds_before
        self._first_step = int(self._state.step)
        self._measured: Errors | None = None
        self._stage: Stage | None = None

        self._report = Report(
            self.run,
            self._name,
            experiment,
            self._dataset,
            mesh,
            start=self._first_step,
            steps_per_epoch=self._steps_per_epoch,
            image_flops=training_flops(network),
            matmul_flops=matmul_flops(mesh, experiment.precision),
            tensorboard=self._options.tensorboard,
        )
        self._report.begin(self._config, epochs=len(self._errors))
        self._enter_epoch()
        if self._errors_due(self._first_step):  # what was asked to stop was the evaluation
            self._read_errors(self._first_step)
            self._enter_epoch()

    def loop(self) -> bool:
        """Takes the steps that are left; False if it was interrupted, with the state saved.

        Raises:
          UserError: Diverged, for a loss that is no number any more, or for a disk without room for a checkpoint.
        """
        batches, saved, agreed = Timed(self._batches()), time.monotonic(), Agreement(self._mesh)
        late = None  # what a step measured is read when the step after it is under way, so that the device never waits
        # What crosses to the devices and back is asked for by name: a transfer that slipped in would be made at every step.
        with Interrupt() as interrupt, closing(self._checkpoints), self._report, jax.transfer_guard("disallow"):
            for step in range(self._first_step + 1, self.steps + 1 if self._stage else 0):
                batch = put_batch(next(batches), self._mesh)
                self._state, measured = self._train_step(self._state, batch, self._mean, self._phase)
                if late is not None:
                    self._read_measured(*late)
                late = (step, measured)
                due = time.monotonic() - saved > self._options.checkpoint_seconds
                granted = agreed(Wish.STOP if interrupt.asked else Wish.SAVE if due else Wish.NOTHING)
                stop = granted is Wish.STOP or step == self.steps
                save = stop or granted is Wish.SAVE
                epoch_ends = step % self._steps_per_epoch == 0
                if epoch_ends or save:
                    self._read_measured(*late)
                    late = None
                    self._report.pause()
                if epoch_ends:
                    self._read_errors(step, lambda: interrupt.asked and jax.process_count() == 1)
                    self._enter_epoch()
                    stop = stop or self._stage is None or self._errors_due(step)
                    save = save or stop or min(self._errors) == self._errors[-1]
                if save:
                    self._checkpoints.save(self._state, self._about(), best=self._best_step())
                    saved = time.monotonic()
                if stop:
                    break
            self._waiting = batches.share
        step = int(self._state.step)
        over = self._stage is None or (step == self.steps and not self._errors_due(step))
        if not over:
            self._report.stopped(step, fresh=self._options.fresh)
        return over

    def finish(self) -> None:
        """Has the result and the pictures made."""
        measured = self._measured or self._measure()
        assert measured is not None
        training = {
            "epochs": len(self._errors),
            "steps": int(self._state.step),
            "best": {"step": self._best_step(), "top1_error": min(self._errors, default=None)},
            "ended_by_schedule": self._stage is None,
            "seconds": time.monotonic() - self._began,
            "waiting_for_data": round(self._waiting, 4),
        }
        first_layer = next(iter(self._network.named_layers))
        kernels = jax.device_put(self._state.params[first_layer]["kernel"], placement.replicated(self._mesh))
        self._report.finish(measured, training, np.asarray(kernels))

    def _batches(self) -> Iterator[Example]:
        return training_batches(
            self._dataset,
            self._experiment.augmentation,
            input_size=self._network.input_size,
            batch_size=self._experiment.batch_size,
            seed=self._experiment.seed,
            start=self._first_step,
            part=placement.rows_here(self._mesh, self._experiment.batch_size),
            readers=Readers(self._options.threads, self._options.workers),
        )

    def _enter_epoch(self) -> None:
        """Puts on the devices what holds in the epoch that begins, unless it held before."""
        stage = self._experiment.stage(self._errors)
        if stage is not None and stage != self._stage:
            of_parameters = rates(self._state.params, stage.weights, stage.biases, stage.layers)
            phase = Phase(of_parameters, np.bool_(stage.color))
            self._phase = placement.put(phase, placement.replicated(self._mesh))
            if self._stage is not None:
                self._report.stage(len(self._errors) + 1, stage)
        self._stage = stage

    def _measure(self, stop: Callable[[], bool] = lambda: False) -> Errors | None:
        return evaluate(
            self._evaluation_step,
            self._state.params,
            self._mean,
            self._mesh,
            self._dataset,
            self._split,
            image_size=self._experiment.augmentation.image_size,
            input_size=self._network.input_size,
            batch_size=self._experiment.batch_size,
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

    def _read_measured(self, step: int, measured: Measured) -> None:
        loss, error = (float(value) for value in jax.device_get((measured.loss, measured.top1_error)))
        if not math.isfinite(loss):
            # It is that of the parameters after the step before, which may have been saved: nobody knew yet what they are.
            self._give_up(f"the loss is {loss} at step {step}", first_bad=step - 1)
        self._training_error += error / self._steps_per_epoch
        self._report.loss(step, loss)

    def _read_errors(self, step: int, stop: Callable[[], bool] = lambda: False) -> None:
        measured = self._measure(stop)
        if measured is None:
            return
        if not math.isfinite(measured.loss):
            self._give_up(f"the {self._split} loss is {measured.loss} after step {step}", first_bad=step)
        self._measured = measured
        self._errors.append(measured.top1_error)
        assert self._stage is not None
        self._report.errors(step, measured, self._stage.weights, self._training_error)
        self._training_error = 0.0

    def _give_up(self, why: str, *, first_bad: int) -> NoReturn:
        good = self._checkpoints.drop_from(first_bad)
        kept = "there is no checkpoint yet" if good is None else f"the last good checkpoint, of step {good}, is kept"
        raise Diverged(f"{why}: choose a lower --learning-rate; in {self.run.folder} {kept}")
