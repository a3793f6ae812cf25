"""What a training tells: lines on the terminal, its log, its result and its pictures."""

from dataclasses import asdict
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.console import console
from alexnet_jax.data.records import Dataset
from alexnet_jax.evaluate import Errors
from alexnet_jax.experiment import Experiment
from alexnet_jax.inspect.pictures import draw_curves, draw_kernels
from alexnet_jax.progress import TrainingProgress, duration
from alexnet_jax.run import Run
from alexnet_jax.schedule import Stage

LOG_EVERY = 10  # steps


class Report:
    """Tells of a training, on the terminal and in the folder of its run. It decides nothing, and touches no device.

    Entered, it shows progress.

    Args:
      run: its folder.
      name: of the experiment.
      experiment: what is trained.
      dataset: on what.
      mesh: where.
      start: steps taken before.
      steps_per_epoch: in the data set.
    """

    def __init__(
        self, run: Run, name: str, experiment: Experiment, dataset: Dataset, mesh: Mesh, *, start: int, steps_per_epoch: int
    ):
        self._run, self._name, self._experiment, self._dataset = run, name, experiment, dataset
        self._steps_per_epoch, self._steps = steps_per_epoch, experiment.epochs * steps_per_epoch
        self._start = start
        self._where = {"mesh": dict(mesh.shape), "device": mesh.devices.flat[0].device_kind, "jax": jax.__version__}
        self._progress = TrainingProgress(
            start=start, steps=self._steps, steps_per_epoch=steps_per_epoch, batch_size=experiment.batch_size
        )

    def __enter__(self) -> "Report":
        self._progress.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.__exit__()

    def begin(self, config: dict[str, Any]) -> None:
        """Says what begins, and writes it down; what was logged of steps that are to be taken again is cut off."""
        self._run.write("config.json", {**config, **self._where})
        self._run.resume_log(self._start)
        axes = ", ".join(f"{size} {axis}" for axis, size in self._where["mesh"].items())
        network, device = self._experiment.network.name, self._where["device"]
        console.print(f"{self._name} ({network}) on {self._dataset.path}, {device} mesh: {axes}", markup=False)
        begun = f"from step {self._start} in" if self._start else "into"
        console.print(f"{begun} {self._run.folder}", markup=False)

    def stage(self, epoch: int, stage: Stage) -> None:
        """Something else holds from `epoch` on."""
        console.print(f"from epoch {epoch} on: {stage}", markup=False)

    def loss(self, step: int, loss: float) -> None:
        """A step is done."""
        if step % LOG_EVERY == 0 or step == 1:
            self._run.log(step=step, loss=loss)
        self._progress.advance(step, loss)

    def pause(self) -> None:
        """The time until the next step is not training's."""
        self._progress.pause()

    def errors(self, step: int, errors: Errors, rate: float | None) -> None:
        """An epoch is done, whose weights had the rate `rate`."""
        epoch, speed, split = step // self._steps_per_epoch, self._progress.images_per_second, self._dataset.evaluation_split
        self._run.log(step=step, epoch=epoch, rate=rate, images_per_second=speed, **_rounded(errors))
        self._progress.tell(
            f"epoch {epoch}/{self._experiment.epochs}  {split} loss {errors.loss:.3f}  "
            f"top-1 error {errors.top1_error:.1%}  top-5 error {errors.top5_error:.1%}  {speed:.0f} images/s"
        )

    def stopped(self, step: int) -> None:
        """Training was interrupted, and saved."""
        goes_on = f"the same command goes on from there: {self._run.folder}"
        console.print(f"stopped at step {step} of {self._steps}; {goes_on}", markup=False)

    def finish(self, errors: Errors, training: dict[str, Any], kernels: np.ndarray) -> None:
        """Writes the result and draws the pictures.

        Args:
          errors: of the parameters at the end.
          training: what else is to be told, as JSON: how long it took, when it was best.
          kernels: of the first layer, as `inspect.pictures.draw_kernels` takes them.
        """
        result = {
            "experiment": self._name,
            **_rounded(errors),
            "split": self._dataset.evaluation_split,
            **training,
            "images_per_second": self._progress.images_per_second,
            "data": self._dataset.path.name,
            **self._where,
        }
        if not self._run.writes:
            return
        folder, title = self._run.folder, f"{self._name} on {self._dataset.path.name}"
        draw_curves(self._run.log_lines(), folder / "curves.png", title=title)
        draw_kernels(kernels, folder / "kernels.png")
        self._run.write("result.json", result)
        console.print(told(result))


def told(result: dict[str, Any]) -> str:
    """A result in a line."""
    errors = f"top-1 error {result['top1_error']:.1%}, top-5 error {result['top5_error']:.1%}"
    effort = f"{result['epochs']} epochs, {result['images_per_second']:.0f} images/s, {duration(result['seconds'])}"
    return f"{errors} on {result['images']} {result['split']} images after {effort}"


def _rounded(errors: Errors) -> dict[str, Any]:
    return {name: round(value, 6) for name, value in asdict(errors).items()}
