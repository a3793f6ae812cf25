"""Measurement of the forms of a training step: time, and comparison of their numbers with those of a reference form."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from alexnet_jax.console import console
from alexnet_jax.data.pipeline.augment import Crop, Example
from alexnet_jax.model.network import Network
from alexnet_jax.parallel.distributed import any_process, from_main_process, is_main_process
from alexnet_jax.parallel.gradients import GradientSum
from alexnet_jax.parallel.mesh import DATA, local_batch_slice, mesh_platform, replicated, to_global_array
from alexnet_jax.training.config import Precision
from alexnet_jax.training.step import (
    TrainState,
    constant_hparams,
    for_precision,
    initial_state,
    put_batch,
    random_batch,
    state_shardings,
)
from alexnet_jax.training.step_form import Alternatives, StepForm

CPU_BATCH = 16
"""Images per data-parallel device in a measured step on a CPU; on other devices, the batch is that of the training."""
ROUNDS, ROUND_S, MAX_STEPS = 3, 0.2, 50
"""Number of timed rounds, of which the fastest counts, and the approximate seconds and largest number of steps of a round."""
TOLERANCES = {"float32": 0.02, "tf32": 0.2, "bfloat16": 0.5}
"""Largest distance of the gradient of a parameter from that of the reference form, relative to its norm, and of the loss, by the
dtype to which arguments of convolutions are rounded.

Rounding can change which pixel of a window is the maximum, or the sign of an activation. The gradient then takes another path, so
that those of the first layers differ most."""
LEARNING_RATE = 1e-5
"""Learning rate of measured steps."""


@dataclass(frozen=True)
class TuningTask:
    """Training step to tune.

    Attributes:
      network: network to train.
      optimizer: optimizer of the training step.
      precision: dtype of activations and gradients.
      gradient_sum: form of the sum of gradients over devices.
      batch_size: images per step.
      mean: mean image before cropping.
      crop_mean: whether batches have crops of the mean image.
      requested_placement: `Options.placement`.
      default: form to use without measurements.
      alternatives: values to compare.
      make_step: function that returns the mesh and the training step in a form.
    """

    network: Network
    optimizer: optax.GradientTransformationExtraArgs
    precision: Precision
    gradient_sum: GradientSum
    batch_size: int
    mean: np.ndarray
    crop_mean: bool
    requested_placement: str
    default: StepForm
    alternatives: Alternatives
    make_step: Callable[[StepForm], tuple[Mesh, Any]]

    @property
    def reference(self) -> StepForm:
        """Form with whose loss and gradients those of the other forms are compared."""
        return replace(self.default, kernels="xla", towers="separate", conv1="direct")


@dataclass(frozen=True)
class Trial:
    """Measurement of a form.

    Attributes:
      form: measured form.
      seconds: seconds of a training step; infinite if the form cannot be used.
      compile_seconds: seconds to trace and compile the step.
      problem: reason why the form cannot be used, or None.
    """

    form: StepForm
    seconds: float
    compile_seconds: float
    problem: str | None = None

    def __str__(self) -> str:
        if self.problem is not None:
            return f"{self.form}: dropped, {self.problem}"
        return f"{self.form}: {1000 * self.seconds:.3g} ms per step, compiled in {self.compile_seconds:.1f} s"


def measure_forms(task: TuningTask, limit: float) -> list[Trial]:
    """Measure forms and print a line for each: the reference, the default, then the alternatives of one field at a time.

    The forms of a field differ in it from the fastest form so far.

    Args:
      task: training step to tune.
      limit: number of seconds; no form is started that is expected to exceed it, except for the reference and the default.
    """
    start, meter, trials = time.monotonic(), _Meter(task), dict[StepForm, Trial]()

    def measure(form: StepForm) -> None:
        if form in trials or (trials and meter.reference is None):  # there is nothing to compare with
            return
        seconds = (time.monotonic() - start) * (1 + 1 / max(1, len(trials)))  # with this form, if it takes as long as the others
        if from_main_process(form not in (task.reference, task.default) and seconds > limit):
            print_line(f"  {form}: not measured, because the time is up")
            return
        trials[form] = meter.measure(form, fastest=min((trial.seconds for trial in trials.values()), default=math.inf))
        print_line(f"  {trials[form]}")

    measure(task.reference)
    measure(task.default)
    for field, values in task.alternatives.items():
        best = min(trials.values(), key=lambda trial: trial.seconds).form
        if field == "towers" and best.placement == "split":
            continue
        for value in values:
            measure(replace(best, **{field: value}))
    return list(trials.values())


class _Meter:
    """Timer of forms, which compares their loss and optimizer state after a step with those of the first form."""

    def __init__(self, task: TuningTask):
        self._task = task
        self.reference: tuple[float, Any, Any] | None = None
        """Loss, optimizer state and its norms of the first form; None if it could not be measured."""

    def measure(self, form: StepForm, fastest: float) -> Trial:
        """Compile, check and time the training step in a form.

        Args:
          form: form to measure.
          fastest: seconds of the fastest form so far; one that takes twice as long in its first step is not timed further.
        """
        start = time.monotonic()
        try:
            return self._measure(form, fastest)
        except _Dropped as error:
            return Trial(form, math.inf, time.monotonic() - start, str(error))

    def _measure(self, form: StepForm, fastest: float) -> Trial:
        mesh, step, state, arguments, compile_seconds = _attempt("it does not compile", lambda: self._compile(form))

        def run(steps: int) -> tuple[Any, float]:
            nonlocal state
            start, metrics = time.perf_counter(), None
            for _ in range(steps):
                state, metrics = step(state, *arguments)
                if mesh_platform(mesh) == "cpu":  # where several steps at a time can block all of XLA's threads and deadlock
                    jax.block_until_ready(metrics)
            jax.block_until_ready((state, metrics))
            return metrics, time.perf_counter() - start

        metrics, _ = _attempt("it cannot be run", lambda: run(1))
        tolerance = tolerance_on(mesh_platform(mesh), self._task.precision)
        loss = float(jax.device_get(metrics.loss))
        problem = _attempt("it cannot be compared", lambda: self._difference(loss, state.opt_state, tolerance))
        if problem is not None:
            raise _Dropped(problem)
        seconds = from_main_process(_attempt("it cannot be run", lambda: run(1)[1]))
        if seconds < 2 * fastest:
            steps = min(MAX_STEPS, max(1, round(ROUND_S / seconds)))
            times = _attempt("it cannot be run", lambda: [run(steps)[1] / steps for _ in range(ROUNDS)])
            seconds = from_main_process(min(seconds, *times))
        return Trial(form, seconds, compile_seconds)

    def _compile(self, form: StepForm) -> tuple[Mesh, Any, TrainState, tuple[Any, ...], float]:
        """Return the mesh, the compiled step, its state and its other arguments, and the seconds of the compilation."""
        task = self._task
        mesh, step = task.make_step(form)
        state = for_precision(initial_state(task.network, mesh, task.optimizer, 0), task.precision)
        if task.gradient_sum.sharded:
            state = jax.device_put(state, state_shardings(mesh, state, task.gradient_sum))
        hparams = to_global_array(constant_hparams(state, LEARNING_RATE), replicated(mesh))
        arguments = (_batch(task, mesh), to_global_array(task.mean, replicated(mesh)), hparams)
        start = time.monotonic()
        compiled = step.lower(state, *arguments).compile()
        return mesh, compiled, state, arguments, time.monotonic() - start

    def _difference(self, loss: float, opt_state: Any, tolerance: float) -> str | None:
        """Return how the loss or the optimizer state after the first step differs from those of the reference, or None.

        The optimizer state is the learning rate times the gradients and weight decay, which is small in comparison.
        """
        if self.reference is None:
            norms = jax.device_get(_distances(opt_state, jax.tree.map(jnp.zeros_like, opt_state)))
            if not all(map(math.isfinite, [loss, *jax.tree.leaves(norms)])):
                return "its numbers are not finite"
            self.reference = loss, jax.tree.map(jnp.copy, opt_state), norms  # the next step reuses its buffers
            return None
        reference_loss, reference_state, norms = self.reference
        shardings = jax.tree.map(lambda x: x.sharding, opt_state)
        distances = jax.device_get(_distances(opt_state, jax.device_put(reference_state, shardings)))
        errors = {"loss": abs(loss - reference_loss) / abs(reference_loss)}
        for (path, distance), norm in zip(jax.tree_util.tree_leaves_with_path(distances), jax.tree.leaves(norms), strict=True):
            name = "/".join(str(part.key) for part in path if isinstance(part, jax.tree_util.DictKey))
            errors[f"gradient of {name}"] = float(distance / norm) if norm else math.inf if distance else 0.0
        for name, error in errors.items():
            if not error <= tolerance:
                return f"its {name} differs from the reference by {error:.1%}, more than {tolerance:.0%}"
        return None


def tolerance_on(platform: str, precision: Precision) -> float:
    """Return the largest relative distance of the gradients of correct forms.

    On a GPU, convolutions in float32 may round their arguments to TF32, which depends on the algorithm that XLA selects.

    Args:
      platform: "cpu" or "gpu".
      precision: dtype of activations and gradients.
    """
    return TOLERANCES["tf32" if precision == "float32" and platform != "cpu" else precision]


class _Dropped(Exception):
    """Reason why a form cannot be used."""


def _attempt(problem: str, function: Callable[[], Any]) -> Any:
    """Return the result of a function that fails in no process.

    Raises:
      _Dropped: in all processes, if the function fails in one of them.
    """
    reason, result = None, None
    try:
        result = function()
    except Exception as error:  # the compilers and drivers raise exceptions of many types
        text = " ".join(f"{type(error).__name__}: {error}".split())
        memory = "RESOURCE_EXHAUSTED" in text or isinstance(error, MemoryError)
        reason = f"{'it does not fit in memory' if memory else problem} ({text[:150]})"
    if any_process(reason is not None):
        raise _Dropped(reason or f"{problem} in another process")
    return result


def _batch(task: TuningTask, mesh: Mesh) -> Example:
    """Return random images and labels on the devices, with the structure of training batches."""
    size, data = task.batch_size, mesh.shape[DATA]
    if mesh_platform(mesh) == "cpu":
        size = min(size, CPU_BATCH * data)
    labels = np.random.default_rng(1).integers(0, task.network.num_classes, size, np.int32)
    crop = Crop(np.zeros((size, 2), np.int32), np.zeros(size, bool)) if task.crop_mean else None
    batch = random_batch(size, task.network.input_size)._replace(label=labels, crop=crop)
    rows = local_batch_slice(mesh, size)
    return put_batch(jax.tree.map(lambda x: x[rows], batch), mesh)


@jax.jit
def _distances(a: Any, b: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.sqrt(jnp.square(a - b).sum()), a, b)


def print_line(line: str) -> None:
    """Print a line in process 0."""
    if is_main_process():
        console.print(line)
