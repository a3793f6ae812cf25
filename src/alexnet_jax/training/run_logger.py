"""Logger of a training run: terminal output, log.jsonl, TensorBoard events and result.json."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import jax

from alexnet_jax.console import count, make_console
from alexnet_jax.model.layers import WeightedLayer
from alexnet_jax.training.confusion import MAX_MATRIX_CLASSES
from alexnet_jax.training.flops import measure_matmul_flops, training_flops_per_image
from alexnet_jax.training.metrics import EvalMetrics, Validation
from alexnet_jax.training.progress import TrainingProgress, format_duration
from alexnet_jax.training.run_directory import CONFIG, RESULT
from alexnet_jax.training.schedule import LEARNING_MARGIN, EpochHparams
from alexnet_jax.training.setup import TrainContext
from alexnet_jax.training.tensorboard import EventWriter

LOG_EVERY = 10
"""Steps between logged losses."""
PAPER_STD = 0.01
"""Standard deviation of the initial weights of every layer in the text of the paper (section 5)."""
SMALL_DATASET = 10_000
"""Number of training images below which `quickstart` is recommended."""


class RunLogger:
    """Logger of a training run to the terminal and the run folder; as a context manager, also shows the progress bar.

    Args:
      context: the run.
      start: number of steps completed before this run started or resumed.

    Attributes:
      progress: progress bar, with a throughput timer that can be paused.
    """

    def __init__(self, context: TrainContext, *, start: int):
        matmul_flops = measure_matmul_flops(context.mesh, context.config.precision)
        self._context, self._run, self._start = context, context.run, start
        self._environment = {
            "mesh": dict(context.mesh.shape),
            "device": context.mesh.devices.flat[0].device_kind,
            "matmul_gflops_per_second": round(matmul_flops / 1e9, 1),
            "jax": jax.__version__,
        }
        self._peak_images_per_second = matmul_flops / training_flops_per_image(context.network)
        self._console = make_console(quiet=not self._run.is_writer)
        events = context.options.tensorboard and self._run.is_writer
        self._events = EventWriter(self._run.folder / "tensorboard", start=start) if events else None
        self.progress = TrainingProgress(
            self._console,
            start=start,
            steps=context.steps,
            steps_per_epoch=context.steps_per_epoch,
            batch_size=context.config.batch_size,
        )

    def __enter__(self) -> "RunLogger":
        self.progress.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.__exit__()

    def start(self, epochs: int) -> None:
        """Write config.json, delete log lines of steps and epochs to be repeated, and print the config, data and devices."""
        config = {**self._context.run_config.to_json(), **self._environment, "tuning": asdict(self._context.tuning)}
        self._run.write(CONFIG, config)
        self._run.resume_log(self._start, epochs)
        self._run.discard_result()
        name, network, data = self._context.name, self._context.network.name, self._context.dataset.path
        trained = name if network == name else f"{name} ({network})"
        self._console.print(f"{trained} on {data}, {self._devices()}", markup=False)
        resumed = f"resuming at step {self._start}: " if self._start else ""
        self._console.print(f"{resumed}{self._run.folder}", markup=False)

    def _devices(self) -> str:
        """Return number and kind of the devices, as in "1 device (cpu)" or "4 devices (cpu), mesh 2 data x 2 tower"."""
        sizes = self._environment["mesh"]
        axes = f", mesh {' x '.join(f'{size} {axis}' for axis, size in sizes.items())}" if len(sizes) > 1 else ""
        return f"{count(math.prod(sizes.values()), 'device')} ({self._environment['device']}){axes}"

    def log_hparams(self, epoch: int, hparams: EpochHparams) -> None:
        """Print the hyperparameters that apply from `epoch` on."""
        self._console.print(f"from epoch {epoch}: {hparams}", markup=False)

    def log_steps(self, losses: Mapping[int, float]) -> None:
        """Log the training losses of consecutive completed steps."""
        for step, loss in losses.items():
            if step % LOG_EVERY == 0 or step == 1:
                self._run.log(step=step, loss=loss)
                if self._events:
                    self._events.write(step, "train", loss=loss)
        if losses:
            self.progress.advance(*list(losses.items())[-1])

    def log_epoch(
        self, step: int, validation: Validation | None, rate: float, training_error: float, errors: Sequence[float]
    ) -> None:
        """Log a completed epoch.

        Args:
          step: last step of the epoch.
          validation: result of the validation after that step; None if the epoch was not evaluated.
          rate: learning rate of weights in this epoch.
          training_error: mean training top-1 error over the batches of the epoch.
          errors: validation top-1 errors after the evaluated epochs before this one.
        """
        epoch, split = step // self._context.steps_per_epoch, self._context.dataset.evaluation_split
        speed = self.progress.images_per_second
        training = {"rate": rate, "training_error": round(training_error, 6), **self._speed()}
        metrics = {} if validation is None else validation.metrics.to_json()
        self._run.log(step=step, epoch=epoch, **training, **metrics)
        if self._events:
            self._events.write(step, "train", **training)
            self._events.write(step, split, **{name: value for name, value in metrics.items() if value is not None})
        parts = [f"epoch {epoch}/{self._context.config.epochs}"]
        parts += [f"training top-1 error {training_error:.1%}"] if validation is None else self._errors(validation.metrics)
        if speed:  # 0 if the run was resumed at the end of an epoch
            parts.append(f"{speed:.0f} images/s")
        if validation is not None and (only_class := self._only_class(validation)):
            expected = "; expected at first with the paper's initial weights" if self._plateau_expected(errors) else ""
            parts.append(f"predicts only {only_class!r}{expected}")
        self.progress.print("  ".join(parts))

    def _errors(self, metrics: EvalMetrics) -> list[str]:
        """Return the parts of the line of an evaluated epoch: loss, with the part of the split, and errors."""
        context = self._context
        split = context.dataset.evaluation_split
        if context.evaluation_part is not None:
            split = f"{metrics.images:,} of {context.dataset.manifest.splits[split]:,} {split} images:"
        top5 = [] if metrics.top5_error is None else [f"top-5 error {metrics.top5_error:.1%}"]
        return [f"{split} loss {metrics.loss:.3f}", f"top-1 error {metrics.top1_error:.1%}", *top5]

    def evaluating_all(self) -> None:
        """Print that the final parameters are evaluated on the whole split."""
        split = self._context.dataset.evaluation_split
        images = count(self._context.dataset.manifest.splits[split], f"{split} image")
        self.progress.print(f"evaluating the final parameters on all {images}")

    def interrupted(self, step: int) -> None:
        """Print that training was interrupted at `step`, with its state saved, and how to resume it."""
        command = "the same command without --fresh" if self._context.options.fresh else "the same command"
        saved = f"state saved in {self._run.folder}"
        self._console.print(f"Stopped at step {step} of {self._context.steps}; {saved}. Run {command} to resume.", markup=False)

    def finish(self, validation: Validation, summary: dict[str, Any]) -> None:
        """Write result.json, with `summary` as additional entries, and print it."""
        metrics = validation.metrics
        result = {
            "config": self._context.name,
            **metrics.to_json(),
            "split": self._context.dataset.evaluation_split,
            **summary,
            **self._speed(),
            "data": self._context.dataset.path.name,
            **self._environment,
        }
        if validation.confusions.num_classes <= MAX_MATRIX_CLASSES:
            self._run.write_confusions(validation.confusions.csv_rows(self._context.dataset.manifest.classes))
        self._run.write(RESULT, result)
        self._console.print(format_result(result), markup=False)
        for warning in self._warnings(validation, ended_by_schedule=summary["ended_by_schedule"]):
            self._console.print(warning, style="yellow", markup=False)

    def _only_class(self, validation: Validation) -> str | None:
        """Return the name of the class that is predicted for all images, although they are of several classes; otherwise None."""
        predicted = validation.confusions.predicted_classes
        if len(predicted) > 1 or len(validation.confusions.true_classes) == 1:
            return None
        return self._context.dataset.manifest.printed_classes[predicted[0]]

    def _plateau_expected(self, errors: Sequence[float]) -> bool:
        """Return whether a network with these validation errors predicts one class because of the paper's initial weights."""
        return self._has_paper_weights and all(map(self._is_unlearned, errors))

    def _is_unlearned(self, error: float) -> bool:
        return error > self._context.dataset.majority_error - LEARNING_MARGIN

    @property
    def _has_paper_weights(self) -> bool:
        """Whether the initial weights of all layers are those of the paper's text, and none were copied."""
        weighted = [layer for layer in self._context.network.layers if isinstance(layer, WeightedLayer)]
        return self._context.initial_layers is None and all(layer.std == PAPER_STD for layer in weighted)

    def _warnings(self, validation: Validation, *, ended_by_schedule: bool) -> list[str]:
        """Return what the user should know about the result."""
        warnings, dataset, default = [], self._context.dataset, self._context.config.default_data
        options = self._context.options
        if options.data is None and not options.classes and dataset.path.name != default:
            warnings.append(f"trained on {dataset.path.name} images, because there is no data set {default}: pass --data")
        only_class = self._only_class(validation)
        if only_class or self._is_unlearned(validation.metrics.top1_error):
            majority = f"always predicting the most frequent class has {dataset.majority_error:.1%}"
            problem = f"predicts only {only_class!r}" if only_class else "has not learned to tell the classes apart"
            warnings += [f"the network {problem} ({majority})", *self._next_commands(ended_by_schedule)]
        return warnings

    def _next_commands(self, ended_by_schedule: bool) -> list[str]:
        """Return the commands that continue the training, and those of configs that learn sooner."""
        context, commands = self._context, list[str]()
        data = shlex.quote(
            context.options.data if context.options.data and not context.options.classes else str(context.dataset.path)
        )
        if not ended_by_schedule:
            same = "the same command without --fresh, and" if context.options.fresh else "the same command"
            folder = shlex.quote(str(self._run.folder))
            keep = f" --run {folder} --keep-schedule" if context.config.schedule_depends_on_epochs else ""
            commands.append(f"{same} with --epochs {2 * context.config.epochs}{keep} continues the training")
        if self._has_paper_weights:
            commands.append(f"alexnet-jax train source_145 --data {data} has initial weights without this plateau")
        if context.dataset.manifest.splits["train"] < SMALL_DATASET and context.name != "quickstart":
            commands.append(f"alexnet-jax train quickstart --data {data} is for small data sets")
        return [f"  {command}" for command in commands]

    def _speed(self) -> dict[str, float]:
        speed = self.progress.images_per_second
        return {"images_per_second": speed, "matmul_fraction": round(speed / self._peak_images_per_second, 4)}


def format_result(result: dict[str, Any]) -> str:
    """Format the contents of result.json as one line."""
    errors = f"top-1 error {result['top1_error']:.1%}"
    if result["top5_error"] is not None:
        errors += f", top-5 error {result['top5_error']:.1%}"
    speed = f", {result['images_per_second']:.0f} images/s" if result["images_per_second"] else ""
    cost = f"{count(result['epochs'], 'epoch')}{speed}, {format_duration(result['seconds'])}"
    return f"{errors} on {count(result['images'], result['split'] + ' image')} after {cost}"
