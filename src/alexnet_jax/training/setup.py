"""Setup of a training run: settings, data, devices, run folder and jitted steps."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Float

from alexnet_jax.console import console
from alexnet_jax.data.find import find_dataset, select_classes
from alexnet_jax.data.pipeline.augment import resize_mean_image
from alexnet_jax.data.pipeline.loading import check_size
from alexnet_jax.data.records import Dataset, is_prepared
from alexnet_jax.data.sources.layout import check_outside
from alexnet_jax.errors import UserError
from alexnet_jax.files import expanded
from alexnet_jax.model.network import Network
from alexnet_jax.parallel.distributed import check_same_settings, check_shared_filesystem, is_main_process, main_process_first
from alexnet_jax.parallel.gradients import GradientSum
from alexnet_jax.parallel.mesh import DATA, choose_mesh, replicated, to_global_array
from alexnet_jax.training.config import Options, TrainConfig
from alexnet_jax.training.evaluation_step import EvaluationStep, make_evaluation_step
from alexnet_jax.training.initialization import InitialLayers, InitialModel, select_initial_layers
from alexnet_jax.training.normalization import MeanImage
from alexnet_jax.training.open_run import find_run_with_other_schedule, open_run
from alexnet_jax.training.optimizer import paper_update
from alexnet_jax.training.run_config import RunConfig, check_settings_can_be_stored
from alexnet_jax.training.run_directory import RunDirectory, default_run_directory, existing_runs
from alexnet_jax.training.step import TrainStep, make_train_step
from alexnet_jax.training.step_form import StepForm, alternative_forms, default_form
from alexnet_jax.training.step_trials import TuningTask
from alexnet_jax.training.tuning import Tuning, choose_form


@dataclass(frozen=True)
class TrainContext:
    """Constants of a training run. The network has the number of classes of the data set; the mean image is on the devices."""

    name: str
    config: TrainConfig
    options: Options
    dataset: Dataset
    network: Network
    mesh: Mesh
    run: RunDirectory
    run_config: RunConfig
    initial_layers: InitialLayers | None
    optimizer: optax.GradientTransformationExtraArgs
    gradient_sum: GradientSum
    tuning: Tuning
    train_step: TrainStep
    evaluation_step: EvaluationStep
    mean: MeanImage

    @property
    def steps_per_epoch(self) -> int:
        """Number of training steps of an epoch."""
        return _steps_per_epoch(self.config, self.dataset)

    @property
    def steps(self) -> int:
        """Total number of training steps, unless the schedule ends training earlier."""
        return self.config.epochs * self.steps_per_epoch

    @property
    def evaluation_part(self) -> int | None:
        """Number of images of the part of the evaluation split that is used during training; None for the whole split."""
        part = self.config.evaluate_images
        return part if part is not None and part < self.dataset.manifest.splits[self.dataset.evaluation_split] else None


def setup(name: str, config: TrainConfig, options: Options, initial_model: InitialModel | None = None) -> TrainContext:
    """Check the settings, find or prepare the data, create the run folder, and build the jitted steps.

    The arguments and errors are those of `train`.
    """
    if config.init_layers and config.init_from is None:
        layers = ", ".join(config.init_layers)
        raise UserError(f"{name} needs a trained network to copy {layers} from: pass --init-from RUN")
    check_settings_can_be_stored(config)
    config.check_evaluations()
    mesh = choose_mesh(config.network, options.placement, options.devices)
    dataset = _find_data(name, config, options)
    network = config.network.with_num_classes(len(dataset.manifest.classes))
    _check_sizes(name, config, dataset, mesh)
    initial_layers = select_initial_layers(config, network, dataset.manifest.classes, initial_model, existing_runs(name, options))
    run_config = RunConfig.of_training(config, network, dataset, initial_layers and initial_layers.record)
    optimizer = paper_update(momentum=config.momentum, weight_decay=config.weight_decay, layer_decays=dict(config.layer_decays))
    gradient_sum = GradientSum(config.gradient_dtype, options.shard_update)
    mean = resize_mean_image(dataset.mean_image, config.augmentation)

    @cache  # the chosen step is compiled once
    def make_step(form: StepForm) -> tuple[Mesh, TrainStep]:
        mesh = choose_mesh(config.network, form.placement, options.devices)
        with form.applied():
            return mesh, make_train_step(
                network, mesh, optimizer, seed=config.seed, precision=config.precision, gradient_sum=gradient_sum
            )

    task = TuningTask(
        network=network,
        optimizer=optimizer,
        precision=config.precision,
        gradient_sum=gradient_sum,
        batch_size=config.batch_size,
        mean=mean,
        crop_mean=config.augmentation.mean == "crop",
        requested_placement=options.placement,
        default=default_form(mesh, config.precision),
        alternatives=alternative_forms(
            network, mesh, options.placement, devices=options.devices, precision=config.precision, batch_size=config.batch_size
        ),
        make_step=make_step,
    )
    make_step(task.default)  # raises an error about the network, if there is one, before the folder is created
    run = _open_run(name, options, dataset, run_config, mean)
    try:
        steps = config.epochs * _steps_per_epoch(config, dataset)
        tuning = choose_form(run, task, mesh, options.tune, steps=steps)
        mesh, train_step = make_step(tuning.form)
        with tuning.form.applied():
            evaluation_step = make_evaluation_step(network, mesh, precision=config.precision)
        return TrainContext(
            name=name,
            config=config,
            options=options,
            dataset=dataset,
            network=network,
            mesh=mesh,
            run=run,
            run_config=run_config,
            initial_layers=initial_layers,
            optimizer=optimizer,
            gradient_sum=gradient_sum,
            tuning=tuning,
            train_step=train_step,
            evaluation_step=evaluation_step,
            mean=to_global_array(mean, replicated(mesh)),
        )
    except BaseException:
        run.close()  # which unlocks the folder
        raise


def _find_data(name: str, config: TrainConfig, options: Options) -> Dataset:
    """Find or prepare the data set, and select the requested classes."""
    with main_process_first("prepare data"):
        dataset = find_dataset(options.data, config.default_data, options.data_dir)
        if options.data and not is_prepared(Path(options.data)):
            option = "--run" if options.run else "--runs-dir"
            check_outside(dataset.manifest.source, options.data, options.run or options.runs_dir / name, option)
        if options.classes:
            return select_classes(dataset, options.classes, options.data_dir)
        return dataset


def _steps_per_epoch(config: TrainConfig, dataset: Dataset) -> int:
    return max(1, dataset.manifest.splits["train"] // config.batch_size)


def _check_sizes(name: str, config: TrainConfig, dataset: Dataset, mesh: Mesh) -> None:
    """Check that the images are large enough for the network and can be decoded, and that the devices divide the batch.

    Raises:
      UserError: if they are not, or do not.
    """
    image_size, input_size, data_parallelism = config.augmentation.image_size, config.network.input_size, mesh.shape[DATA]
    if image_size < input_size:
        problem = f"images of {image_size} pixels are too small for {name}, whose input size is {input_size}"
        raise UserError(f"{problem}: choose a larger --image-size")
    check_size(dataset, image_size)
    if config.batch_size % data_parallelism:
        problem = f"a batch of {config.batch_size} images cannot be split evenly over {data_parallelism} devices"
        raise UserError(f"{problem}: change --batch-size or --devices")
    _ = dataset.evaluation_split  # raises if the data set has none


def _open_run(
    name: str, options: Options, dataset: Dataset, run_config: RunConfig, mean_image: Float[np.ndarray, "size size 3"]
) -> RunDirectory:
    """Open the run folder in process 0 and write the mean image, and check that all processes use it with the same settings."""
    folder = expanded(options.run or default_run_directory(options.runs_dir, name, dataset, run_config))
    if is_main_process() and options.run is None and not folder.exists():
        other = find_run_with_other_schedule(folder, run_config)
        if other is not None:
            advice = f"to continue that run instead, pass --run {other} --keep-schedule"
            console.print(f"new run, because the schedule of {other} is for another number of epochs: {advice}", style="yellow")
    with main_process_first("create run folder"):
        run = open_run(folder, run_config, options) if is_main_process() else RunDirectory(folder, is_writer=False)
    try:
        check_same_settings([str(folder), run_config.to_json(), options.loss_delay, options.shard_update])
        check_shared_filesystem(folder)
        run.write_mean_image(mean_image)
    except BaseException:
        run.close()
        raise
    return run
