"""Logger of a training run: terminal output, log.jsonl, TensorBoard events and result.json."""

from dataclasses import asdict
from typing import Any

import jax

from alexnet_jax.console import count, make_console
from alexnet_jax.training.flops import measure_matmul_flops, training_flops_per_image
from alexnet_jax.training.progress import TrainingProgress, format_duration
from alexnet_jax.training.schedule import LEARNING_MARGIN, EpochHparams
from alexnet_jax.training.setup import TrainContext
from alexnet_jax.training.tensorboard import EventWriter
from alexnet_jax.training.validation import EvalMetrics

LOG_EVERY = 10
"""Steps between logged losses."""


class RunLogger:
    """Logger of a training run to the terminal and the run folder; as a context manager, also shows the progress bar.

    Args:
      context: the run.
      start: number of steps completed before this run started or resumed.
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
        self._progress = TrainingProgress(
            self._console,
            start=start,
            steps=context.steps,
            steps_per_epoch=context.steps_per_epoch,
            batch_size=context.config.batch_size,
        )

    def __enter__(self) -> "RunLogger":
        self._progress.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.__exit__()

    def start(self, epochs: int) -> None:
        """Write config.json, delete log lines of steps and epochs that will be repeated, and print the config, data and devices.

        Args:
          epochs: number of validated epochs.
        """
        self._run.write("config.json", {**self._context.run_config.to_json(), **self._environment})
        self._run.resume_log(self._start, epochs)
        self._run.discard_result()
        axes = ", ".join(f"{size} {axis}" for axis, size in self._environment["mesh"].items())
        name, network, data = self._context.name, self._context.network.name, self._context.dataset.path
        self._console.print(f"{name} ({network}) on {data}, {self._environment['device']} mesh: {axes}", markup=False)
        resumed = f"resuming at step {self._start}: " if self._start else ""
        self._console.print(f"{resumed}{self._run.folder}", markup=False)

    def log_hparams(self, epoch: int, hparams: EpochHparams) -> None:
        """Print the hyperparameters that apply from `epoch` on."""
        self._console.print(f"from epoch {epoch}: {hparams}", markup=False)

    def log_step(self, step: int, loss: float) -> None:
        """Log the training loss of a completed step."""
        if step % LOG_EVERY == 0 or step == 1:
            self._run.log(step=step, loss=loss)
            if self._events:
                self._events.write(step, "train", loss=loss)
        self._progress.advance(step, loss)

    def pause(self) -> None:
        """Pause the throughput timer until the next step."""
        self._progress.pause()

    def log_epoch(self, step: int, metrics: EvalMetrics, rate: float, training_error: float) -> None:
        """Log a completed epoch.

        Args:
          step: last step of the epoch.
          metrics: validation metrics after that step.
          rate: learning rate of weights in this epoch.
          training_error: mean training top-1 error over the batches of the epoch.
        """
        epoch, split = step // self._context.steps_per_epoch, self._context.dataset.evaluation_split
        speed = self._progress.images_per_second
        training = {"rate": rate, "training_error": round(training_error, 6), **self._speed()}
        self._run.log(step=step, epoch=epoch, **training, **_rounded(metrics))
        if self._events:
            self._events.write(step, "train", **training)
            self._events.write(step, split, **{name: value for name, value in _rounded(metrics).items() if value is not None})
        line = f"top-1 error {metrics.top1_error:.1%}"
        if metrics.top5_error is not None:
            line += f"  top-5 error {metrics.top5_error:.1%}"
        if speed:  # 0 if the run was resumed at the end of an epoch
            line += f"  {speed:.0f} images/s"
        self._progress.print(f"epoch {epoch}/{self._context.config.epochs}  {split} loss {metrics.loss:.3f}  {line}")

    def interrupted(self, step: int) -> None:
        """Print that training was interrupted at `step`, with its state saved, and how to resume it."""
        command = "the same command without --fresh" if self._context.options.fresh else "the same command"
        saved = f"state saved in {self._run.folder}"
        self._console.print(f"Stopped at step {step} of {self._context.steps}; {saved}. Run {command} to resume.", markup=False)

    def finish(self, metrics: EvalMetrics, summary: dict[str, Any]) -> None:
        """Write result.json and print it.

        Args:
          metrics: validation metrics of the final parameters.
          summary: additional entries of result.json.
        """
        result = {
            "config": self._context.name,
            **_rounded(metrics),
            "split": self._context.dataset.evaluation_split,
            **summary,
            **self._speed(),
            "data": self._context.dataset.path.name,
            **self._environment,
        }
        self._run.write("result.json", result)
        self._console.print(format_result(result), markup=False)
        for warning in self._warnings(metrics):
            self._console.print(warning, style="yellow", markup=False)

    def _warnings(self, metrics: EvalMetrics) -> list[str]:
        """Return what the user should know about the result."""
        warnings, dataset, default = [], self._context.dataset, self._context.config.default_data
        options = self._context.options
        if options.data is None and not options.classes and dataset.path.name != default:
            warnings.append(f"trained on {dataset.path.name} images, because there is no data set {default}: pass --data")
        if metrics.top1_error > dataset.majority_error - LEARNING_MARGIN:
            majority = f"always predicting the most frequent class has {dataset.majority_error:.1%}"
            warnings.append(f"the network has not learned to tell the classes apart ({majority}): train longer")
        return warnings

    def _speed(self) -> dict[str, float]:
        speed = self._progress.images_per_second
        return {"images_per_second": speed, "matmul_fraction": round(speed / self._peak_images_per_second, 4)}


def format_result(result: dict[str, Any]) -> str:
    """Format the contents of result.json as one line."""
    errors = f"top-1 error {result['top1_error']:.1%}"
    if result["top5_error"] is not None:
        errors += f", top-5 error {result['top5_error']:.1%}"
    speed = f", {result['images_per_second']:.0f} images/s" if result["images_per_second"] else ""
    cost = f"{count(result['epochs'], 'epoch')}{speed}, {format_duration(result['seconds'])}"
    return f"{errors} on {count(result['images'], result['split'] + ' image')} after {cost}"


def _rounded(metrics: EvalMetrics) -> dict[str, Any]:
    return {name: value if value is None else round(value, 6) for name, value in asdict(metrics).items()}
