"""What a training tells: lines on the terminal, its log, its result, its pictures and a page of it all."""

from dataclasses import asdict
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.checkpoint import versions
from alexnet_jax.console import console
from alexnet_jax.data.records import Dataset
from alexnet_jax.errors import UserError, full_disk_told
from alexnet_jax.evaluate import Errors
from alexnet_jax.experiment import Experiment
from alexnet_jax.inspect.examples import Choice, Examples, find_examples
from alexnet_jax.inspect.figures import PAGE, write_page
from alexnet_jax.inspect.pictures import draw_curves, draw_kernels
from alexnet_jax.progress import TrainingProgress, duration
from alexnet_jax.run import Run
from alexnet_jax.schedule import Stage
from alexnet_jax.tensorboard import Events
from alexnet_jax.trained import load

LOG_EVERY = 10  # steps
LOOKED_AT = Choice(searched=2000)  # when training ends: seconds, whatever the data set


class Report:
    """Tells of a training, on the terminal and in the folder of its run. It decides nothing, and until the end touches no device.

    Entered, it shows progress.

    Args:
      run: its folder.
      name: of the experiment.
      experiment: what is trained.
      dataset: on what.
      mesh: where.
      start: steps taken before.
      steps_per_epoch: in the data set.
      image_flops: of the training step for one image.
      matmul_flops: FLOP/s of matrix products on the mesh, which the log compares with.
      tensorboard: whether the log is written for TensorBoard, too.
    """

    def __init__(
        self,
        run: Run,
        name: str,
        experiment: Experiment,
        dataset: Dataset,
        mesh: Mesh,
        *,
        start: int,
        steps_per_epoch: int,
        image_flops: int,
        matmul_flops: float,
        tensorboard: bool,
    ):
        self._run, self._name, self._experiment, self._dataset = run, name, experiment, dataset
        self._steps_per_epoch, self._steps = steps_per_epoch, experiment.epochs * steps_per_epoch
        self._start = start
        self._where = {
            "mesh": dict(mesh.shape),
            "device": mesh.devices.flat[0].device_kind,
            "matmul_gflops_per_second": round(matmul_flops / 1e9, 1),
            "jax": jax.__version__,
        }
        self._peak_images = matmul_flops / image_flops  # a second, if a step were matrix products at their best
        self._events = Events(run.folder / "tensorboard", start=start) if tensorboard and run.writes else None
        self._progress = TrainingProgress(
            start=start, steps=self._steps, steps_per_epoch=steps_per_epoch, batch_size=experiment.batch_size
        )

    def __enter__(self) -> "Report":
        self._progress.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.__exit__()

    def begin(self, config: dict[str, Any], epochs: int) -> None:
        """Says what begins, and writes it down; of the log stays what is known of the steps taken and the `epochs` measured."""
        self._run.write("config.json", {**config, **self._where})
        self._run.resume_log(self._start, epochs)
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
            if self._events:
                self._events.write(step, "train", loss=loss)
        self._progress.advance(step, loss)

    def pause(self) -> None:
        """The time until the next step is not training's."""
        self._progress.pause()

    def errors(self, step: int, errors: Errors, rate: float, training_error: float) -> None:
        """An epoch is done.

        Args:
          step: at its end.
          errors: measured then.
          rate: of weights, in this epoch.
          training_error: mean top-1 error of its batches.
        """
        epoch, speed, split = step // self._steps_per_epoch, self._progress.images_per_second, self._dataset.evaluation_split
        training = {"rate": rate, "training_error": round(training_error, 6), **self._speed()}
        self._run.log(step=step, epoch=epoch, **training, **_rounded(errors))
        if self._events:
            self._events.write(step, "train", **training)
            self._events.write(step, split, **_rounded(errors))
        told = f"top-1 error {errors.top1_error:.1%}  top-5 error {errors.top5_error:.1%}"
        if speed:  # none is known of an epoch that has ended before the run went on
            told += f"  {speed:.0f} images/s"
        self._progress.tell(f"epoch {epoch}/{self._experiment.epochs}  {split} loss {errors.loss:.3f}  {told}")

    def stopped(self, step: int, *, fresh: bool) -> None:
        """Training was interrupted, and saved."""
        command = "the same command without --fresh" if fresh else "the same command"
        console.print(f"stopped at step {step} of {self._steps}; {command} goes on from there: {self._run.folder}", markup=False)

    def finish(self, errors: Errors, training: dict[str, Any], kernels: np.ndarray) -> None:
        """Draws the pictures, writes the result, then the page.

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
            **self._speed(),
            "data": self._dataset.path.name,
            **self._where,
        }
        if not self._run.writes:
            return
        folder, title = self._run.folder, f"{self._name} on {self._dataset.path.name}"
        with full_disk_told(f"for the pictures in {folder}"):
            draw_curves(self._run.log_lines(), folder / "curves.png", title=title)
            draw_kernels(kernels, folder / "kernels.png")
        self._run.write("result.json", result)
        console.print(told(result))
        try:  # training is finished, and stays so
            examples = self._examples()
            with full_disk_told(f"for {folder / PAGE}; the training is finished"):
                about = {"config": self._run.config, "result": self._run.result, "log": self._run.log_lines()}
                write_page(folder, title=title, kernels=kernels, examples=examples, versions=versions(), **about)
        except UserError:
            raise
        except Exception as error:
            console.print(f"{folder / PAGE} cannot be written: {error!r}", style="yellow", markup=False)

    def _examples(self) -> Examples | str:
        """What the network makes of some images, or why that is not known."""
        later = f"python -m alexnet_jax figures {self._run.folder} finds them"
        if jax.process_count() > 1:  # a network needs its devices, and those of the other processes are not at hand
            return f"Left out because several processes have trained together: {later}."
        try:
            return find_examples(load(self._run.folder), self._dataset, self._dataset.evaluation_split, LOOKED_AT)
        except Exception as error:
            why = " ".join(str(error).split()) or type(error).__name__
            console.print(f"no predictions and no retrieval in {self._run.folder / PAGE}: {why}", style="yellow", markup=False)
            return f"Left out because of this: {why}; {later}, once that is put right."

    def _speed(self) -> dict[str, float]:
        images = self._progress.images_per_second
        return {"images_per_second": images, "matmul_share": round(images / self._peak_images, 4)}


def told(result: dict[str, Any]) -> str:
    """A result in a line."""
    errors = f"top-1 error {result['top1_error']:.1%}, top-5 error {result['top5_error']:.1%}"
    effort = f"{result['epochs']} epochs, {result['images_per_second']:.0f} images/s, {duration(result['seconds'])}"
    return f"{errors} on {result['images']} {result['split']} images after {effort}"


def _rounded(errors: Errors) -> dict[str, Any]:
    return {name: round(value, 6) for name, value in asdict(errors).items()}
