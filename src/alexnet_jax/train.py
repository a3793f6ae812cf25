"""Training, from an experiment and a data set to a run folder."""

import math
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from alexnet_jax import placement
from alexnet_jax.checkpoint import Checkpoints
from alexnet_jax.console import console
from alexnet_jax.data.augment import mean_to_subtract
from alexnet_jax.data.locate import find_dataset
from alexnet_jax.data.pipeline import training_batches
from alexnet_jax.devices import Placement, choose_mesh
from alexnet_jax.errors import UserError
from alexnet_jax.evaluate import Errors, evaluate
from alexnet_jax.experiment import Experiment
from alexnet_jax.inspect.pictures import draw_curves, draw_kernels
from alexnet_jax.optimizer import paper_update, stepwise_rate
from alexnet_jax.progress import TrainingProgress, duration
from alexnet_jax.run import Run, configuration, run_folder
from alexnet_jax.step import initial_state, make_evaluation_step, make_train_step, put_batch, state_shardings

LOG_EVERY = 10  # steps


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
      devices: how many devices to use; None is all GPUs, or a CPU device for each tower.
      threads: threads that decode images; None is one a core.
      checkpoint_seconds: time between checkpoints.
    """

    data: str | None = None
    data_dir: Path = Path("data")
    runs_dir: Path = Path("runs")
    run: Path | None = None
    fresh: bool = False
    placement: Placement = "auto"
    devices: int | None = None
    threads: int | None = None
    checkpoint_seconds: float = 120.0


def train(name: str, experiment: Experiment, options: Options) -> Path:
    """Trains until the last epoch or an interrupt, from where an earlier call stopped.

    Returns:
      The run folder, with `result.json` if training is finished.

    Raises:
      UserError: for settings, data or a disk that training cannot work with.
    """
    dataset = find_dataset(options.data, experiment.default_data, options.data_dir)
    network = experiment.network.with_classes(len(dataset.manifest.classes))
    augmentation, batch_size = experiment.augmentation, experiment.batch_size
    if augmentation.image_size < network.input_size:
        raise UserError(f"images of {augmentation.image_size} pixels are too small for {name}, which takes {network.input_size}")
    mesh = choose_mesh(network, options.placement, options.devices)
    if batch_size % mesh.shape[placement.DATA]:
        raise UserError(
            f"a batch of {batch_size} images cannot be divided among {mesh.shape[placement.DATA]} devices: choose --batch-size"
        )

    config = configuration(experiment, network, dataset)
    run = Run(options.run or run_folder(options.runs_dir, name, dataset, config), fresh=options.fresh)
    steps_per_epoch = max(1, dataset.manifest.splits["train"] // batch_size)
    steps = experiment.epochs * steps_per_epoch
    if run.result is not None and run.result["steps"] >= steps:
        console.print(f"{run.folder} is finished: {_told(run.result)}; --fresh trains it again, --epochs longer")
        return run.folder
    run.write(
        "config.json", {**config, "jax": jax.__version__, "mesh": dict(mesh.shape), "device": mesh.devices.flat[0].device_kind}
    )

    optimizer = paper_update(
        stepwise_rate(experiment.learning_rate, experiment.rate_cuts, steps_per_epoch),
        momentum=experiment.momentum,
        weight_decay=experiment.weight_decay,
        bias_rate=experiment.bias_rate,
    )
    train_step = make_train_step(network, mesh, optimizer, seed=experiment.seed, color_divisor=augmentation.color_divisor)
    evaluation_step = make_evaluation_step(network, mesh)
    mean = jax.device_put(
        mean_to_subtract(dataset.mean_image, augmentation.image_size, network.input_size), placement.replicated(mesh)
    )

    checkpoints = Checkpoints(run.checkpoints, network.describe())
    state = initial_state(network, mesh, optimizer, experiment.seed)
    like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, state_shardings(mesh, state))
    restored = checkpoints.restore(like)
    seconds_before = 0.0
    if restored is not None:
        state, seconds_before = restored[0], restored[1]["seconds"]
    start = int(state.step)
    run.resume_log(start)
    _announce(name, network.name, mesh, dataset.path, run.folder, start)

    began = saved = time.monotonic()

    def save() -> None:
        checkpoints.save(state, {"seconds": seconds_before + time.monotonic() - began})

    def errors() -> Errors:
        sizes = {"image_size": augmentation.image_size, "input_size": network.input_size, "batch_size": batch_size}
        return evaluate(evaluation_step, state.params, mean, mesh, dataset, dataset.evaluation_split, **sizes)

    batches = training_batches(
        dataset,
        augmentation,
        input_size=network.input_size,
        batch_size=batch_size,
        seed=experiment.seed,
        start=start,
        threads=options.threads,
    )
    pending = None  # a loss is read when the step after it is under way, so that the device never waits
    measured: Errors | None = None
    with (
        Interrupt() as interrupt,
        TrainingProgress(start=start, steps=steps, steps_per_epoch=steps_per_epoch, batch_size=batch_size) as progress,
    ):

        def read_loss() -> None:
            nonlocal pending
            if pending is None:
                return
            step, loss = pending[0], float(pending[1])
            pending = None
            if not math.isfinite(loss):
                raise UserError(
                    f"the loss is {loss} at step {step}: choose a lower --learning-rate; {run.folder} keeps what was good"
                )
            if step % LOG_EVERY == 0 or step == 1:
                run.log(step=step, loss=loss)
            progress.advance(step, loss)

        for step in range(start + 1, steps + 1):
            state, loss = train_step(state, put_batch(next(batches), mesh), mean)
            read_loss()
            pending = (step, loss)
            if step % steps_per_epoch == 0:
                read_loss()
                progress.pause()
                measured = errors()
                epoch = step // steps_per_epoch
                run.log(step=step, epoch=epoch, images_per_second=progress.images_per_second, **_rounded(measured))
                progress.tell(
                    f"epoch {epoch}/{experiment.epochs}  validation loss {measured.loss:.3f}  "
                    f"top-1 error {measured.top1_error:.1%}  top-5 error {measured.top5_error:.1%}  "
                    f"{progress.images_per_second:.0f} images/s"
                )
            if interrupt.asked or time.monotonic() - saved > options.checkpoint_seconds or step == steps:
                read_loss()
                progress.pause()
                save()
                saved = time.monotonic()
            if interrupt.asked and step < steps:
                checkpoints.wait()
                console.print(f"stopped at step {step} of {steps}; the same command goes on from there: {run.folder}")
                checkpoints.close()
                return run.folder
    checkpoints.wait()
    checkpoints.close()

    measured = measured or errors()
    result = {
        "experiment": name,
        **_rounded(measured),
        "split": dataset.evaluation_split,
        "epochs": experiment.epochs,
        "steps": steps,
        "images_per_second": progress.images_per_second,
        "seconds": seconds_before + time.monotonic() - began,
        "data": dataset.path.name,
        "mesh": dict(mesh.shape),
        "device": mesh.devices.flat[0].device_kind,
        "jax": jax.__version__,
    }
    draw_curves(run.log_lines(), run.folder / "curves.png", title=f"{name} on {dataset.path.name}")
    first = jax.device_get(state.params[next(iter(state.params))]["kernel"])
    draw_kernels(np.asarray(first), run.folder / "kernels.png")
    run.write("result.json", result)
    console.print(_told(result))
    return run.folder


class Interrupt:
    """While entered, Ctrl-C and SIGTERM set `asked` instead of ending the process; a second one ends it."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "Interrupt":
        self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True
        self._restore()
        console.print("stopping after this step (again to stop at once)")

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def _announce(name: str, network: str, mesh: jax.sharding.Mesh, data: Path, folder: Path, start: int) -> None:
    where = ", ".join(f"{size} {axis}" for axis, size in mesh.shape.items())
    console.print(f"{name} ({network}) on {data}, {mesh.devices.flat[0].device_kind} mesh: {where}", markup=False)
    console.print(f"{'from step ' + str(start) + ' in' if start else 'into'} {folder}", markup=False)


def _rounded(errors: Errors) -> dict[str, Any]:
    return {name: round(value, 6) for name, value in asdict(errors).items()}


def _told(result: dict[str, Any]) -> str:
    errors = f"top-1 error {result['top1_error']:.1%}, top-5 error {result['top5_error']:.1%}"
    effort = f"{result['epochs']} epochs, {result['images_per_second']:.0f} images/s, {duration(result['seconds'])}"
    return f"{errors} on {result['images']} {result['split']} images after {effort}"
