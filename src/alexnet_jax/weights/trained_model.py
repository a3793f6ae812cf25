"""Trained models in memory: initialization, loading and saving.

A `TrainedModel` is the input of evaluation, figures and export.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from alexnet_jax.data.npy_file import read_array
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.statistics import check_mean_image
from alexnet_jax.errors import UserError
from alexnet_jax.files import expanded, resolved
from alexnet_jax.model.network import Network
from alexnet_jax.model.tower import HostParams
from alexnet_jax.parallel import placement
from alexnet_jax.parallel.mesh import make_mesh
from alexnet_jax.training.checkpoint_reader import read_metadata, read_params
from alexnet_jax.training.run_config import DataRecord, RunConfig, is_same_run
from alexnet_jax.training.run_directory import CONFIG, MEAN_IMAGE, RunDirectory
from alexnet_jax.version import versions
from alexnet_jax.weights.safetensors_file import SUFFIX, read_model, read_run_config, write_model
from alexnet_jax.weights.state_dict import check_finite


@dataclass(frozen=True)
class TrainedModel:
    """Trained network with its parameters, mean image and config.

    Attributes:
      path: run folder, or file that the model was loaded from.
      step: training step at which the model was saved.
      params: parameters with a leading tower axis, float32.
      mean_image: mean image subtracted from the input, 0 to 255, of the size to which images are decoded.
      config: config of the run, or what is known of an imported network.
      versions: versions of the software that saved the model.
    """

    path: Path
    step: int
    params: HostParams = field(repr=False)
    mean_image: Float[np.ndarray, "size size 3"] = field(repr=False)
    config: RunConfig
    versions: dict[str, str]

    @property
    def network(self) -> Network:
        """Architecture."""
        return self.config.network

    @property
    def classes(self) -> list[str]:
        """Class names, ordered by label."""
        return self.config.data.classes

    @property
    def printed_classes(self) -> list[str]:
        """Class names to print, ordered by label: "zebra" for n02391049. All are different."""
        return self.config.data.printed_classes

    @property
    def image_size(self) -> int:
        """Side in pixels to which images are decoded before they are cropped to the network's input size."""
        return self.config.augmentation.image_size

    @property
    def output_dir(self) -> Path:
        """Default folder for results, see `output_dir`."""
        return output_dir(self.path)

    def __str__(self) -> str:
        return f"{self.path} at step {self.step}"


_PATHS = "a run folder or a checkpoint folder, RUN/checkpoints/STEP, or a .safetensors file"


def is_model(path: Path) -> bool:
    """Return whether a path looks like one that `load` takes: a run folder, a checkpoint folder or a .safetensors file."""
    folder = resolved(expanded(path))
    if folder.is_dir():
        return (folder / CONFIG).is_file() or "checkpoints" in (folder.name, folder.parent.name)
    return path.suffix == SUFFIX


def latest_step(run: Path) -> int | None:
    """Return the step of the latest checkpoint of a run folder, or None if it has none or is not a run folder."""
    folder = expanded(run) / "checkpoints"
    files = folder.iterdir() if folder.is_dir() else ()  # unlike `glob`, raises an error without permission
    return max((int(file.name) for file in files if file.name.isdecimal()), default=None)


def output_dir(path: Path) -> Path:
    """Return the default folder for results of the model at a path: the run folder, or the file's path without its suffix."""
    if path.suffix == SUFFIX:
        return path.with_suffix("")
    return path.parents[1] if path.parent.name == "checkpoints" and path.name.isdecimal() else path


def load(path: str | Path, *, best: bool = False) -> TrainedModel:
    """Load a model from a run, a checkpoint or a file.

    Args:
      path: run folder, whose latest checkpoint is loaded; checkpoint folder, RUN/checkpoints/STEP; or .safetensors file written
        by `export` or `import`.
      best: whether to load a run's checkpoint with the lowest validation error instead of its latest one.

    Raises:
      UserError: if the checkpoint or file does not exist, cannot be read, or has an incompatible version.
    """
    path = expanded(path)
    if path.suffix == SUFFIX and not path.is_dir():
        metadata, config, params, mean_image = read_model(path)
        return TrainedModel(resolved(path), metadata["step"], params, mean_image, config, metadata["versions"])
    run, step = _find_checkpoint(path, best)
    metadata, config, params = read_params(run / "checkpoints" / str(step))
    file, advice = run / MEAN_IMAGE, "resume training to write it again"
    mean_image = read_array(file, advice)
    _check_same_run(run, step, metadata["config"])
    check_mean_image(mean_image, config.augmentation.image_size, file, advice)
    for layer, arrays in params.items():
        for kind, array in arrays.items():
            check_finite(array, f"{layer}.{kind}", f"{run} at step {step}")
    return TrainedModel(run, step, params, mean_image, config, metadata["versions"])


def _check_same_run(run: Path, step: int, config: dict[str, Any]) -> None:
    """Check that a checkpoint is of the run that config.json describes, if the run has this file and it is not damaged.

    Raises:
      UserError: if it is of another one.
    """
    try:
        same = is_same_run(RunDirectory(run).config, config)
    except (OSError, UserError, KeyError, TypeError):  # missing or damaged; a checkpoint has all that is needed
        return
    if not same:
        problem = f"the checkpoint {run / 'checkpoints' / str(step)} has another network or data set than {run / CONFIG}"
        raise UserError(f"{problem}: put the checkpoint back into the folder of its run")


def load_run_config(path: str | Path) -> RunConfig:
    """Load the config of a run, a checkpoint or a file, without its parameters.

    Args:
      path: see `load`; a run needs no checkpoint.

    Raises:
      UserError: if it does not exist or cannot be read.
    """
    path = expanded(path)
    if path.suffix == SUFFIX and not path.is_dir():
        return read_run_config(path)
    if (path / CONFIG).is_file():
        try:
            record = RunDirectory(path).config
        except UserError as error:
            raise UserError(f"cannot read {path / CONFIG}: restore it, or pass a checkpoint, {path}/checkpoints/STEP") from error
        return RunConfig.from_json(record, path)
    run, step = _find_checkpoint(path, best=False)
    return read_metadata(run / "checkpoints" / str(step))[1]


def save(model: TrainedModel, file: str | Path) -> None:
    """Write a model atomically to one .safetensors file that `load` can read.

    Raises:
      UserError: if the file name does not end in .safetensors, or the disk is full.
    """
    file = check_suffix(file)
    write_model(file, model.params, model.mean_image, file_metadata(model))


def check_suffix(file: str | Path) -> Path:
    """Check the suffix of a file name, and return the name as a path.

    Raises:
      UserError: if the name does not end in .safetensors.
    """
    file = Path(file)
    if file.suffix != SUFFIX:
        raise UserError(f"{file} must end in {SUFFIX}, the only supported output format")
    return file


def file_metadata(model: TrainedModel) -> dict[str, Any]:
    """Return the metadata stored in a model's file; see `safetensors_file`."""
    return {
        "network": model.network.to_json(),
        "classes": model.classes,
        "printed_classes": model.printed_classes,
        "config": model.config.to_json(),
        "step": model.step,
        "versions": model.versions,
    }


def initialize(network: Network, *, classes: Sequence[str] | None = None, image_size: int = 256, seed: int = 0) -> TrainedModel:
    """Return a model with randomly initialized parameters and a uniform mean image of 128.

    Args:
      network: architecture; the width of its last layer is set to the number of `classes`.
      classes: class names, ordered by label; None uses the network's number of classes, with the names "0", "1", …
      image_size: side to which images are scaled before the center crop, pixels.
      seed: random seed of the parameters.

    Raises:
      UserError: if `image_size` is smaller than the network's input size.

    Examples:
      >>> from alexnet_jax import QUICKSTART
      >>> model = initialize(QUICKSTART, classes=["cat", "dog"], image_size=128)
      >>> model.params["conv1"]["kernel"].shape  # towers, rows, columns, colors, kernels per tower
      (2, 11, 11, 3, 16)
    """
    if image_size < network.input_size:
        raise UserError(
            f"images of {image_size} pixels are too small for {network.name}, which needs at least {network.input_size}"
        )
    network = network if classes is None else network.with_num_classes(len(classes))
    mesh = make_mesh(network, jax.devices()[:1], split_towers=False)
    params = jax.device_get(placement.init(network, mesh, jax.random.key(seed)))
    return from_params(network, params, np.full((image_size, image_size, 3), 128, np.float32), classes)


def from_params(
    network: Network,
    params: HostParams,
    mean_image: Float[np.ndarray, "size size 3"],
    classes: Sequence[str] | None = None,
    source: Path | None = None,
) -> TrainedModel:
    """Return a model with the given parameters, and a config without training settings.

    Args:
      network: architecture.
      params: parameters with a leading tower axis.
      mean_image: mean image subtracted from the input, 0 to 255.
      classes: class names, ordered by label; None uses "0", "1", …
      source: file that the parameters were read from, if any.

    Raises:
      UserError: if the number of class names is not that of the network, or the mean image is invalid.
    """
    check_mean_image(mean_image, len(mean_image), source or network.name, "pass float32 values from 0 to 255")
    names = [str(number) for number in range(network.num_classes)] if classes is None else list(classes)
    augmentation = Augmentation(image_size=len(mean_image), transforms=())
    imported = None if source is None else str(resolved(source))
    config = RunConfig(network, augmentation, DataRecord("imagenet", {}, names), imported=imported)
    path = source or Path(network.name)
    RunConfig.from_json(config.to_json(), path)  # checks it
    return TrainedModel(path, 0, params, mean_image, config, versions())


def _find_checkpoint(path: Path, best: bool) -> tuple[Path, int]:
    """Return the run folder and the step of a checkpoint."""
    path = resolved(expanded(path))
    if path.name == "checkpoints" and (path.parent / CONFIG).is_file():
        raise UserError(f"{path} is the folder of a run's checkpoints: pass the run folder {path.parent}, or one checkpoint")
    if path.parent.name == "checkpoints" and path.name.isdecimal() and path.is_dir():
        return path.parents[1], int(path.name)
    if not path.exists():
        raise UserError(f"{path} does not exist: pass {_PATHS}")
    if path.is_file():
        raise UserError(
            f"{path} is not a .safetensors file: convert weights with alexnet-jax import {path} --to NAME.safetensors"
        )
    latest = latest_step(path)
    if latest is None:
        raise UserError(f"{path} has no checkpoints: pass {_PATHS}")
    if not best:
        return path, latest
    step = read_metadata(path / "checkpoints" / str(latest))[0]["best_step"]
    if step is None:
        raise UserError(f"{path} has no best checkpoint, since no validation error is recorded yet: omit --best")
    return path, step
