"""Training loop with checkpoints, validation after epochs, and resumption."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from alexnet_jax.console import console
from alexnet_jax.data.pipeline.augment import Example
from alexnet_jax.data.pipeline.batches import LoaderOptions, training_batches
from alexnet_jax.errors import DivergedError, UserError
from alexnet_jax.parallel.distributed import Request, RequestConsensus
from alexnet_jax.parallel.mesh import local_batch_slice, mesh_platform, replicated, to_global_array
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.history import History
from alexnet_jax.training.metrics import Validation
from alexnet_jax.training.optimizer import learning_rates
from alexnet_jax.training.prefetch import Prefetcher
from alexnet_jax.training.progress import TimedIterator
from alexnet_jax.training.result import TrainResult
from alexnet_jax.training.run_logger import RunLogger
from alexnet_jax.training.schedule import EpochHparams
from alexnet_jax.training.setup import TrainContext
from alexnet_jax.training.step import (
    StepHparams,
    TrainMetrics,
    TrainState,
    for_precision,
    initial_state,
    put_batch,
    state_shardings,
)
from alexnet_jax.training.validation import validate

LOSS_DELAY, CPU_LOSS_DELAY = 4, 1
"""Default values of `Options.loss_delay` on GPUs and on CPUs."""

READ_INTERVAL_S = 0.25
"""Minimum time between readings of metrics, in seconds. Reading those of several short steps at once takes less time."""


def run_loop(context: TrainContext, should_stop: Callable[[], bool]) -> TrainResult:
    """Run the remaining steps of a training run.

    Args:
      context: the run.
      should_stop: see `train`.

    Returns:
      Whether training is finished, with result.json written, or was interrupted, with its state saved.

    Raises:
      DivergedError: if the loss is not finite.
      UserError: if the disk is full, or no checkpoint can be read.
    """
    loop = _Loop(context, should_stop)
    # The transfer guard rejects implicit transfers, which would be repeated in every step.
    with closing(loop.prefetcher), closing(loop.checkpoints), loop.logger, jax.transfer_guard("disallow"):
        final = loop.evaluate_all() if loop.train() else None
    if final is None:
        loop.logger.interrupted(loop.step)
        return TrainResult(context.run.folder, False, loop.step, None)
    loop.logger.finish(final, loop.summary())
    return TrainResult(context.run.folder, True, loop.step, final.metrics)


class _Loop:
    """State of a training run between its steps.

    Args:
      context: the run.
      should_stop: see `train`.
    """

    def __init__(self, context: TrainContext, should_stop: Callable[[], bool]):
        c, on_cpu = context, mesh_platform(context.mesh) == "cpu"
        self._context, self._should_stop = context, should_stop
        self.checkpoints = Checkpoints(c.run.checkpoints, c.run_config.to_json())
        state, self._history = _restore_or_initialize(c, self.checkpoints)
        state = for_precision(state, c.config.precision)
        if c.gradient_sum.sharded:
            state = jax.device_put(state, state_shardings(c.mesh, state, c.gradient_sum))
        self._state, self.step = state, int(state.step)
        self._start_time = time.monotonic() - self._history.seconds
        self._saved_step, self._save_time = self.step, time.monotonic()
        self.logger = RunLogger(c, start=self.step)
        self.logger.start(epochs=self._history.epochs)
        self._hparams = self._epoch_hparams()
        self._step_hparams = None if self._hparams is None else _transfer_hparams(c, state, self._hparams)
        default_delay = CPU_LOSS_DELAY if on_cpu else LOSS_DELAY
        self._loss_delay = default_delay if c.options.loss_delay is None else c.options.loss_delay
        # On several CPU devices, concurrent steps can block all of XLA's threads and deadlock; on one, a step that is started
        # before the state is ready does not run in this thread, see `runtime.configure_cpu`.
        cpu_max_ahead = 0 if c.mesh.size == 1 else 1
        self._max_ahead = cpu_max_ahead if on_cpu else self._loss_delay
        self._consensus = RequestConsensus(c.mesh, delay=CPU_LOSS_DELAY if on_cpu else max(1, self._loss_delay))
        self._unread: deque[tuple[int, TrainMetrics]] = deque()  # steps whose metrics have not been read
        self._read_time = time.monotonic()
        self._final: Validation | None = None  # validation of the current parameters on the whole split
        # The step determines the batches that follow, so a checkpoint needs no position of the stream, which is ahead of it.
        self.prefetcher = Prefetcher(_batches(c, self.step), lambda batch: put_batch(batch, c.mesh))
        self._batches, self._wait_fraction = TimedIterator(self.prefetcher), 0.0

    def train(self) -> bool:
        """Run steps until training is finished or interrupted; save the state and return whether it is finished."""
        c, request = self._context, Request.NONE
        while True:
            if self._epoch_ended():
                request = max(request, self._end_epoch())
            finished = self._hparams is None or (self.step == c.steps and not self._epoch_ended())
            stop = finished or request is Request.STOP
            if stop or request is Request.SAVE:
                self._save()
            if stop:
                self._wait_fraction = self._batches.wait_fraction  # before the final evaluation
                return finished
            self._train_step()
            request = Request.STOP if self._should_stop() else Request.SAVE if self._save_due() else Request.NONE
            request = self._consensus(request)
            if request is not Request.NONE or self.step % c.steps_per_epoch == 0:
                self._read_metrics(0)  # a checkpoint is saved only after the losses of all its steps have been read
                self.logger.progress.pause()

    def evaluate_all(self) -> Validation | None:
        """Return the validation of the final parameters on the whole split, or None if it was interrupted."""
        if self._final is None:
            self.logger.evaluating_all()
            self._final = self._validate()
        return self._final

    def summary(self) -> dict[str, Any]:
        """Return the contents of result.json that do not depend on the final validation."""
        errors = self._history.errors
        return {
            "epochs": self._history.epochs,
            "steps": self.step,
            "best": {"step": self._best_step(), "top1_error": min(errors.values(), default=None)},
            "ended_by_schedule": self._hparams is None,
            "seconds": time.monotonic() - self._start_time,
            "data_wait_fraction": round(self._wait_fraction, 4),
        }

    def _train_step(self) -> None:
        """Start a step, and read the metrics of earlier ones."""
        c = self._context
        assert self._step_hparams is not None
        self._state, metrics = c.train_step(self._state, next(self._batches), c.mean, self._step_hparams)
        self.step += 1
        self.logger.progress.resume(self.step)
        self._unread.append((self.step, metrics))
        if len(self._unread) > self._max_ahead:
            self._unread[-1 - self._max_ahead][1].loss.block_until_ready()
        if self._loss_delay == 0 or time.monotonic() - self._read_time >= READ_INTERVAL_S:
            self._read_metrics(self._loss_delay)

    def _read_metrics(self, delay: int) -> None:
        """Read and log the metrics of all steps but the last `delay`."""
        self._read_time = time.monotonic()
        unread = [self._unread.popleft() for _ in range(len(self._unread) - delay)]
        training_error, losses = self._history.training_error, dict[int, float]()
        # One call for all: a call for each takes several times as long.
        all_metrics = jax.device_get([metrics for _, metrics in unread])
        for (step, _), metrics in zip(unread, all_metrics, strict=True):
            loss = float(metrics.loss)
            if not math.isfinite(loss):
                self.logger.log_steps(losses)
                # The loss was computed with the parameters of the previous step, which may already have been saved.
                raise self._diverged(f"the training loss is {loss} at step {step}", first_bad_step=step - 1)
            losses[step] = loss
            training_error += float(metrics.top1_error) / self._context.steps_per_epoch
        self.logger.log_steps(losses)
        self._history = replace(self._history, training_error=training_error)

    def _epoch_ended(self) -> bool:
        """Return whether an epoch ended at or before the current step that the history does not contain."""
        return self.step // self._context.steps_per_epoch > self._history.epochs

    def _end_epoch(self) -> Request:
        """Evaluate and log the epoch that ended, and set the hyperparameters of the next one.

        Returns:
          STOP if the evaluation was interrupted, so that the epoch has to be ended again; SAVE if the state has to be saved now;
          otherwise NONE.
        """
        c, history = self._context, self._history
        evaluated = (history.epochs + 1) % c.config.evaluate_every == 0
        validation = self._validate(c.evaluation_part) if evaluated else None
        if evaluated and validation is None:
            return Request.STOP
        assert self._hparams is not None
        errors = list(history.errors.values())
        self.logger.log_epoch(self.step, validation, self._hparams.weights, history.training_error, errors)
        self._history = history = history.after_epoch(None if validation is None else validation.metrics.top1_error)
        self._final = validation if c.evaluation_part is None else None
        previous, self._hparams = self._hparams, self._epoch_hparams()
        if self._hparams is not None and self._hparams != previous:
            self._step_hparams = _transfer_hparams(c, self._state, self._hparams)
            if history.epochs < c.config.epochs:
                self.logger.log_hparams(history.epochs + 1, self._hparams)
        if history.best_epoch() != history.epochs:
            return Request.NONE
        if jax.process_count() > 1 or self._save_due() or not self.checkpoints.any_saved:
            return Request.SAVE
        self.checkpoints.hold(self._state, self._metadata(), best_step=self.step)
        return Request.NONE

    def _epoch_hparams(self) -> EpochHparams | None:
        """Return the hyperparameters of the next epoch; None if the schedule ends training before it."""
        c, history = self._context, self._history
        return c.config.epoch_hparams(history.epochs, history.errors, c.dataset.majority_error)

    def _validate(self, num_images: int | None = None) -> Validation | None:
        """Return the validation of the current parameters, or None if it was interrupted; see `validate`."""

        def stop() -> bool:
            return jax.process_count() == 1 and self._should_stop()

        validation = validate(self._context, self._state.params, num_images, stop=stop)
        if validation is not None and not math.isfinite(validation.metrics.loss):
            split, loss = self._context.dataset.evaluation_split, validation.metrics.loss
            raise self._diverged(f"the {split} loss is {loss} after step {self.step}", first_bad_step=self.step)
        return validation

    def _diverged(self, reason: str, *, first_bad_step: int) -> DivergedError:
        """Delete the checkpoints of `first_bad_step` and later, and return the error to raise."""
        last_step = self.checkpoints.delete_from(first_bad_step)
        kept = "no checkpoint was saved" if last_step is None else f"the last good checkpoint is that of step {last_step}"
        return DivergedError(f"{reason}: choose a lower --learning-rate ({kept} in {self._context.run.folder})")

    def _save_due(self) -> bool:
        return time.monotonic() - self._save_time > self._context.options.checkpoint_seconds

    def _save(self) -> None:
        """Save the current state, unless it is saved already."""
        if self.step != self._saved_step:
            self.checkpoints.save(self._state, self._metadata(), best_step=self._best_step())
            self._saved_step, self._save_time = self.step, time.monotonic()

    def _metadata(self) -> dict[str, Any]:
        return self._history.to_json(time.monotonic() - self._start_time)

    def _best_step(self) -> int | None:
        """Return the last step of the epoch with the smallest validation error."""
        epoch = self._history.best_epoch()
        return None if epoch is None else epoch * self._context.steps_per_epoch


def _restore_or_initialize(context: TrainContext, checkpoints: Checkpoints) -> tuple[TrainState, History]:
    """Return the state and the history of the latest checkpoint, or those before the first step."""
    state = initial_state(context.network, context.mesh, context.optimizer, context.config.seed)
    restored = checkpoints.restore(state)
    if restored is not None:
        state, metadata = restored
        return state, History.from_json(metadata)
    if context.run.result is not None:  # starting over would delete it
        problem = f"{context.run.folder} is finished, but has no checkpoint to continue from"
        raise UserError(f"{problem}: choose a different --run, or pass --fresh to start over")
    if context.initial_layers is None:
        return state, History()
    state = context.initial_layers.copy_into(state)
    if context.run.is_writer:
        console.print(context.initial_layers.summary, markup=False)
    return state, History()


def _transfer_hparams(context: TrainContext, state: TrainState, hparams: EpochHparams) -> StepHparams:
    """Transfer the hyperparameters of an epoch to the devices."""
    rates = learning_rates(state.params, hparams.weights, hparams.biases, hparams.layers)
    divisor = np.float32(context.config.augmentation.color_divisor)
    return to_global_array(StepHparams(rates, np.bool_(hparams.color), divisor), replicated(context.mesh))


def _batches(context: TrainContext, start: int) -> Iterator[Example]:
    config, options = context.config, context.options
    return training_batches(
        context.dataset,
        config.augmentation,
        input_size=context.network.input_size,
        batch_size=config.batch_size,
        seed=config.seed,
        loader_options=LoaderOptions(
            options.threads, options.workers, start=start, batch_slice=local_batch_slice(context.mesh, config.batch_size)
        ),
    )
