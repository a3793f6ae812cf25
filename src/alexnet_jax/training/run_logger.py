"""Logger of a training run: terminal output, log.jsonl, TensorBoard events and result.json."""

from dataclasses import asdict
from typing import Any

import jax
from jax.sharding import Mesh

from alexnet_jax.console import console
from alexnet_jax.data.records import Dataset
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.progress import TrainingProgress, format_duration
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.training.schedule import EpochHparams
from alexnet_jax.training.tensorboard import EventWriter
from alexnet_jax.training.validation import EvalMetrics

LOG_EVERY = 10
"""Steps between logged losses."""


class RunLogger:
    """Logger of a training run to the terminal and the run folder; as a context manager, also shows the progress bar.

    Args:
      run: run folder.
      name: name of the config.
      config: training config.
      dataset: training data.
      mesh: device mesh.
      start: number of steps completed before this run started or resumed.
      steps_per_epoch: number of training steps of an epoch.
      image_flops: FLOPs of a training step per image.
      matmul_flops: measured FLOP/s of matrix products on the mesh, the denominator of the logged `matmul_fraction`.
      tensorboard: whether to also write TensorBoard events.
    """

    def __init__(
        self,
        run: RunDirectory,
        name: str,
        config: TrainConfig,
        dataset: Dataset,
        mesh: Mesh,
        *,
        start: int,
        steps_per_epoch: int,
        image_flops: int,
        matmul_flops: float,
        tensorboard: bool,
    ):
        self._run, self._name, self._config, self._dataset = run, name, config, dataset
        self._steps_per_epoch, self._steps = steps_per_epoch, config.epochs * steps_per_epoch
        self._start = start
        self._environment = {
            "mesh": dict(mesh.shape),
            "device": mesh.devices.flat[0].device_kind,
            "matmul_gflops_per_second": round(matmul_flops / 1e9, 1),
            "jax": jax.__version__,
        }
        self._peak_images_per_second = matmul_flops / image_flops
        self._events = EventWriter(run.folder / "tensorboard", start=start) if tensorboard and run.is_writer else None
        self._progress = TrainingProgress(
            start=start, steps=self._steps, steps_per_epoch=steps_per_epoch, batch_size=config.batch_size
        )

    def __enter__(self) -> "RunLogger":
        self._progress.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.__exit__()

    def start(self, record: dict[str, Any], epochs: int) -> None:
        """Write config.json, delete log lines of steps and epochs that will be repeated, and print the config, data and devices.

        Args:
          record: the run's config, see `run_config`.
          epochs: number of validated epochs.
        """
        self._run.write("config.json", {**record, **self._environment})
        self._run.resume_log(self._start, epochs)
        axes = ", ".join(f"{size} {axis}" for axis, size in self._environment["mesh"].items())
        network, device = self._config.network.name, self._environment["device"]
        console.print(f"{self._name} ({network}) on {self._dataset.path}, {device} mesh: {axes}", markup=False)
        resumed = f"resuming at step {self._start}: " if self._start else ""
        console.print(f"{resumed}{self._run.folder}", markup=False)

    def log_hparams(self, epoch: int, hparams: EpochHparams) -> None:
        """Print the hyperparameters that apply from `epoch` on."""
        console.print(f"from epoch {epoch}: {hparams}", markup=False)

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
        epoch, speed, split = step // self._steps_per_epoch, self._progress.images_per_second, self._dataset.evaluation_split
        training = {"rate": rate, "training_error": round(training_error, 6), **self._speed()}
        self._run.log(step=step, epoch=epoch, **training, **_rounded(metrics))
        if self._events:
            self._events.write(step, "train", **training)
            self._events.write(step, split, **_rounded(metrics))
        line = f"top-1 error {metrics.top1_error:.1%}  top-5 error {metrics.top5_error:.1%}"
        if speed:  # 0 if the run was resumed at the end of an epoch
            line += f"  {speed:.0f} images/s"
        self._progress.print(f"epoch {epoch}/{self._config.epochs}  {split} loss {metrics.loss:.3f}  {line}")

    def interrupted(self, step: int, *, fresh: bool) -> None:
        """Print that training was interrupted at `step`, with its state saved, and how to resume it."""
        command = "the same command without --fresh" if fresh else "the same command"
        console.print(
            f"Stopped at step {step} of {self._steps}; state saved in {self._run.folder}. Run {command} to resume.", markup=False
        )

    def finish(self, metrics: EvalMetrics, summary: dict[str, Any]) -> None:
        """Write result.json and print it.

        Args:
          metrics: validation metrics of the final parameters.
          summary: additional entries of result.json.
        """
        result = {
            "config": self._name,
            **_rounded(metrics),
            "split": self._dataset.evaluation_split,
            **summary,
            **self._speed(),
            "data": self._dataset.path.name,
            **self._environment,
        }
        self._run.write("result.json", result)
        console.print(format_result(result))

    def _speed(self) -> dict[str, float]:
        speed = self._progress.images_per_second
        return {"images_per_second": speed, "matmul_fraction": round(speed / self._peak_images_per_second, 4)}


def format_result(result: dict[str, Any]) -> str:
    """Format the contents of result.json as one line."""
    errors = f"top-1 error {result['top1_error']:.1%}, top-5 error {result['top5_error']:.1%}"
    cost = f"{result['epochs']} epochs, {result['images_per_second']:.0f} images/s, {format_duration(result['seconds'])}"
    return f"{errors} on {result['images']} {result['split']} images after {cost}"


def _rounded(metrics: EvalMetrics) -> dict[str, Any]:
    return {name: round(value, 6) for name, value in asdict(metrics).items()}
