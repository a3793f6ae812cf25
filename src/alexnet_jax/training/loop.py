"""Training loop with checkpoints, validation after epochs, and resumption."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from alexnet_jax.console import console
from alexnet_jax.data.pipeline.augment import Example
from alexnet_jax.data.pipeline.batches import LoaderOptions, training_batches
from alexnet_jax.errors import DivergedError
from alexnet_jax.parallel.distributed import Request, RequestConsensus
from alexnet_jax.parallel.mesh import local_batch_slice, replicated, to_global_array
from alexnet_jax.training.checkpoint import Checkpoints
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


@dataclass(frozen=True)
class History:
    """Past of a run that a checkpoint stores besides the state.

    Attributes:
      epochs: number of completed epochs.
      errors: validation top-1 error by epoch, of those that were evaluated.
      training_error: sum of the training top-1 errors of the current epoch's batches, divided by the number of its steps.
      seconds: time spent on the run before it was resumed.
    """

    epochs: int = 0
    errors: Mapping[int, float] = field(default_factory=dict)
    training_error: float = 0.0
    seconds: float = 0.0

    def after_epoch(self, error: float | None) -> "History":
        """Return the history after one more epoch.

        Args:
          error: its validation top-1 error; None if it was not evaluated.
        """
        epochs = self.epochs + 1
        errors = self.errors if error is None else {**self.errors, epochs: error}
        return replace(self, epochs=epochs, errors=errors, training_error=0.0)

    def best_epoch(self) -> int | None:
        """Return the epoch with the smallest validation error, the latest such epoch if there are several; None before any."""
        return max((-error, epoch) for epoch, error in self.errors.items())[1] if self.errors else None

    def to_json(self, seconds: float) -> dict[str, Any]:
        """Return the metadata of a checkpoint.

        Args:
          seconds: time spent on the run.
        """
        errors = [self.errors.get(epoch) for epoch in range(1, self.epochs + 1)]
        return {"seconds": seconds, "errors": errors, "training_error": self.training_error}

    @classmethod
    def from_json(cls, metadata: dict[str, Any]) -> "History":
        """Return the history from the metadata of a checkpoint, which has an error, or None, for every epoch."""
        errors = {epoch: error for epoch, error in enumerate(metadata["errors"], 1) if error is not None}
        return cls(len(metadata["errors"]), errors, metadata["training_error"], metadata["seconds"])


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
    c = context
    checkpoints = Checkpoints(c.run.checkpoints, c.run_config.to_json())
    state, history = _restore_or_initialize(c, checkpoints)
    state = for_precision(state, c.config.precision)
    if c.gradient_sum.sharded:
        state = jax.device_put(state, state_shardings(c.mesh, state, c.gradient_sum))
    start_time, step = time.monotonic() - history.seconds, int(state.step)
    logger = RunLogger(c, start=step)
    logger.start(epochs=history.epochs)
    hparams = c.config.epoch_hparams(history.epochs, history.errors, c.dataset.majority_error)
    step_hparams = None if hparams is None else _transfer_hparams(c, state, hparams)
    on_cpu = c.mesh.devices.flat[0].platform == "cpu"
    loss_delay = c.options.loss_delay if c.options.loss_delay is not None else CPU_LOSS_DELAY if on_cpu else LOSS_DELAY
    consensus = RequestConsensus(c.mesh, delay=CPU_LOSS_DELAY if on_cpu else max(1, loss_delay))
    pending: deque[tuple[int, TrainMetrics]] = deque()  # steps whose metrics have not been read
    saved_step, save_time, request = step, time.monotonic(), Request.NONE
    final = None  # validation of the current parameters on the whole split
    # The step determines the batches that follow, so a checkpoint needs no position of the stream, which is ahead of the step.
    prefetcher = Prefetcher(_batches(c, step), lambda batch: put_batch(batch, c.mesh))
    batches = TimedIterator(prefetcher)

    def save_due() -> bool:
        return time.monotonic() - save_time > c.options.checkpoint_seconds

    def stop_validation() -> bool:
        return jax.process_count() == 1 and should_stop()

    # The transfer guard rejects implicit transfers, which would be repeated in every step.
    with closing(prefetcher), closing(checkpoints), logger, jax.transfer_guard("disallow"):
        while True:
            if _epoch_ended(c, step, history):
                evaluated = (history.epochs + 1) % c.config.evaluate_every == 0
                validation = validate(c, state.params, c.evaluation_part, stop=stop_validation) if evaluated else None
                if evaluated and validation is None:
                    request = Request.STOP
                else:
                    _check_finite(validation, c, checkpoints, step)
                    assert hparams is not None
                    logger.log_epoch(step, validation, hparams.weights, history.training_error, list(history.errors.values()))
                    history = history.after_epoch(None if validation is None else validation.metrics.top1_error)
                    final = validation if c.evaluation_part is None else None
                    previous, hparams = hparams, c.config.epoch_hparams(history.epochs, history.errors, c.dataset.majority_error)
                    if hparams is not None and hparams != previous:
                        step_hparams = _transfer_hparams(c, state, hparams)
                        if history.epochs < c.config.epochs:
                            logger.log_hparams(history.epochs + 1, hparams)
                    if history.best_epoch() == history.epochs:
                        if checkpoints.any_saved and jax.process_count() == 1 and not save_due():
                            checkpoints.hold(state, history.to_json(time.monotonic() - start_time), best_step=step)
                        else:
                            request = max(request, Request.SAVE)
            finished = hparams is None or (step == c.steps and not _epoch_ended(c, step, history))
            stop = finished or request is Request.STOP
            if (stop or request is Request.SAVE) and step != saved_step:
                metadata = history.to_json(time.monotonic() - start_time)
                checkpoints.save(state, metadata, best_step=_best_step(c, history))
                saved_step, save_time = step, time.monotonic()
            if stop:
                break
            assert step_hparams is not None
            state, train_metrics = c.train_step(state, next(batches), c.mean, step_hparams)
            step += 1
            pending.append((step, train_metrics))
            if on_cpu and len(pending) > 1:
                jax.block_until_ready(pending[-2])  # several concurrent steps can block all of XLA's threads and deadlock
            if len(pending) > loss_delay:
                history = _log_step(*pending.popleft(), c, history, logger, checkpoints)
            request = consensus(Request.STOP if should_stop() else Request.SAVE if save_due() else Request.NONE)
            if request is not Request.NONE or step % c.steps_per_epoch == 0:
                while pending:  # a checkpoint is saved only after the losses of all its steps have been read
                    history = _log_step(*pending.popleft(), c, history, logger, checkpoints)
                logger.pause()
        wait_fraction = batches.wait_fraction
        if finished and final is None:
            logger.evaluating_all()
            final = validate(c, state.params, stop=stop_validation)
            _check_finite(final, c, checkpoints, step)
    if not finished or final is None:
        logger.interrupted(step)
        return TrainResult(c.run.folder, False, step, None)
    summary = {
        "epochs": history.epochs,
        "steps": step,
        "best": {"step": _best_step(c, history), "top1_error": min(history.errors.values(), default=None)},
        "ended_by_schedule": hparams is None,
        "seconds": time.monotonic() - start_time,
        "data_wait_fraction": round(wait_fraction, 4),
    }
    logger.finish(final, summary)
    return TrainResult(c.run.folder, True, step, final.metrics)


def _restore_or_initialize(context: TrainContext, checkpoints: Checkpoints) -> tuple[TrainState, History]:
    """Return the state and the history of the latest checkpoint, or those before the first step."""
    state = initial_state(context.network, context.mesh, context.optimizer, context.config.seed)
    shardings = state_shardings(context.mesh, state)
    like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)
    restored = checkpoints.restore(like)
    if restored is not None:
        state, metadata = restored
        return state, History.from_json(metadata)
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


def _epoch_ended(context: TrainContext, step: int, history: History) -> bool:
    """Return whether an epoch ended at or before `step` that the history does not contain."""
    return step // context.steps_per_epoch > history.epochs


def _best_step(context: TrainContext, history: History) -> int | None:
    """Return the last step of the epoch with the smallest validation error."""
    epoch = history.best_epoch()
    return None if epoch is None else epoch * context.steps_per_epoch


def _log_step(
    step: int, metrics: TrainMetrics, context: TrainContext, history: History, logger: RunLogger, checkpoints: Checkpoints
) -> History:
    """Fetch and log the metrics of a training step, and add its error to the history."""
    loss, error = (float(value) for value in jax.device_get((metrics.loss, metrics.top1_error)))
    if not math.isfinite(loss):
        # The loss was computed with the parameters of the previous step, which may already have been saved.
        raise _diverged(context, checkpoints, f"the training loss is {loss} at step {step}", first_bad_step=step - 1)
    logger.log_step(step, loss)
    return replace(history, training_error=history.training_error + error / context.steps_per_epoch)


def _check_finite(validation: Validation | None, context: TrainContext, checkpoints: Checkpoints, step: int) -> None:
    """Raise a DivergedError if the loss of a validation after `step` is not finite."""
    if validation is not None and not math.isfinite(validation.metrics.loss):
        reason = f"the {context.dataset.evaluation_split} loss is {validation.metrics.loss} after step {step}"
        raise _diverged(context, checkpoints, reason, first_bad_step=step)


def _diverged(context: TrainContext, checkpoints: Checkpoints, reason: str, *, first_bad_step: int) -> DivergedError:
    """Delete the checkpoints of `first_bad_step` and later, and return the error to raise."""
    last_step = checkpoints.delete_from(first_bad_step)
    kept = "no checkpoint was saved" if last_step is None else f"the last good checkpoint is that of step {last_step}"
    return DivergedError(f"{reason}: choose a lower --learning-rate ({kept} in {context.run.folder})")
