"""A network as a training has left it: what evaluation, figures and exports begin with."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.errors import UserError
from alexnet_jax.model.network import Network
from alexnet_jax.model.tower import HostParams
from alexnet_jax.parallel import placement
from alexnet_jax.parallel.mesh import make_mesh
from alexnet_jax.training.checkpoint import read_metadata, read_params, versions
from alexnet_jax.training.run_directory import MEAN_IMAGE
from alexnet_jax.weights.safetensors_file import SUFFIX, read_model, write_model


@dataclass(frozen=True)
class TrainedModel:
    """A trained network.

    Attributes:
      path: folder of its run, or the file it is in.
      step: after which it was saved.
      network: what it is.
      params: of the network, stacked along a first axis of towers, float32; NumPy arrays.
      mean_image: what is subtracted from images, gray levels, at the size that images are decoded to.
      config: of the run, see `run.configuration`.
      versions: of what has saved it.
    """

    path: Path
    step: int
    network: Network
    params: HostParams
    mean_image: Float[np.ndarray, "size size 3"]
    config: dict[str, Any]
    versions: dict[str, str]

    @property
    def classes(self) -> list[str]:
        """Names of the classes, whose places are the labels."""
        return self.config["data"]["classes"]

    @property
    def image_size(self) -> int:
        """Side that images are decoded to, of which the network takes a part, pixels."""
        return self.config["augmentation"]["image_size"]

    @property
    def output_dir(self) -> Path:
        """Where what is made of it goes: into its run, or beside its file, under its name."""
        return self.path.with_suffix("") if self.path.suffix == SUFFIX else self.path

    def __str__(self) -> str:
        return f"{self.path} at step {self.step}"


def load(path: str | Path, *, best: bool = False) -> TrainedModel:
    """The network of a run, of one of its checkpoints, or of a file.

    Args:
      path: a run folder, for its latest checkpoint, the folder of a checkpoint, RUN/checkpoints/STEP, or a .safetensors file
        that `export` or `import` has written.
      best: of a run, take the checkpoint with the smallest validation error instead.

    Raises:
      UserError: if there is no such checkpoint or file, or it cannot be read, or it is of another version.
    """
    path = Path(path)
    if path.suffix == SUFFIX and not path.is_dir():
        about, params, mean_image = read_model(path)
        return _trained(path.resolve(), about["step"], about, params, mean_image)
    run, step = _checkpoint(path, best)
    about, params = read_params(run / "checkpoints" / str(step))
    file = run / MEAN_IMAGE
    try:
        mean_image = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file} cannot be read ({error}): go on with its training, which writes it again") from error
    return _trained(run, step, about, params, mean_image)


def save(trained: TrainedModel, file: str | Path) -> None:
    """Writes a network to one .safetensors file for `load`, whole or not at all.

    Raises:
      UserError: if the file is called otherwise, or the disk has no room.
    """
    file = check_suffix(file)
    write_model(file, trained.params, trained.mean_image, file_metadata(trained))


def check_suffix(file: str | Path) -> Path:
    """The name of a file to write.

    Raises:
      UserError: if it does not end in .safetensors.
    """
    file = Path(file)
    if file.suffix != SUFFIX:
        raise UserError(f"{file} should end in {SUFFIX}, which is what will be in it")
    return file


def file_metadata(trained: TrainedModel) -> dict[str, Any]:
    """What a file says of its network, as JSON."""
    return {
        "network": trained.network.to_json(),
        "classes": trained.classes,
        "config": trained.config,
        "step": trained.step,
        "versions": trained.versions,
    }


def initialize(network: Network, *, classes: Sequence[str] | None = None, image_size: int = 256, seed: int = 0) -> TrainedModel:
    """A network as training begins with it, but for the mean image, which is of a middle gray.

    Args:
      network: which; its last layer takes the number of `classes`.
      classes: their names; None is the network's own number of them, called "0", "1", …
      image_size: side that images are brought to, of which the network takes the center, pixels.
      seed: of the weights.

    Raises:
      UserError: if images of that size are too small for the network.

    Examples:
      >>> from alexnet_jax import QUICKSTART
      >>> trained = initialize(QUICKSTART, classes=["cat", "dog"], image_size=128)
      >>> trained.params["conv1"]["kernel"].shape  # towers, rows, columns, colors, kernels of a tower
      (2, 11, 11, 3, 16)
    """
    if image_size < network.input_size:
        raise UserError(f"images of {image_size} pixels are too small for {network.name}, which takes {network.input_size}")
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
    """A network that was not trained here, of whose training nothing is known.

    Args:
      network: what it is.
      params: of the network, stacked along a first axis of towers.
      mean_image: what is subtracted from images, gray levels.
      classes: names of the classes; None calls them "0", "1", …
      source: the file it comes from, if any.
    """
    names = [str(number) for number in range(network.num_classes)] if classes is None else list(classes)
    config = {
        "network": network.to_json(),
        "augmentation": asdict(Augmentation(image_size=len(mean_image), color=None)),
        "data": {"path": "imagenet", "splits": {}, "classes": names},
        **({} if source is None else {"imported": str(source.resolve())}),
    }
    return TrainedModel(source or Path(network.name), 0, network, params, mean_image, config, versions())


def _trained(run: Path, step: int, about: dict[str, Any], params: HostParams, mean_image: np.ndarray) -> TrainedModel:
    config = about["config"]
    return TrainedModel(run, step, Network.from_json(config["network"]), params, mean_image, config, about["versions"])


def _checkpoint(path: Path, best: bool) -> tuple[Path, int]:
    """The run that a path means, and the step."""
    path = path.resolve()
    if path.parent.name == "checkpoints" and path.name.isdecimal() and path.is_dir():
        return path.parents[1], int(path.name)
    steps = sorted(int(file.name) for file in (path / "checkpoints").glob("*") if file.name.isdecimal())
    if not steps:
        raise UserError(f"{path} is neither the folder of a run that has checkpoints nor one of them, RUN/checkpoints/STEP")
    if not best:
        return path, steps[-1]
    step = read_metadata(path / "checkpoints" / str(steps[-1]))["best"]
    if step is None:
        raise UserError(f"{path} has measured no validation error yet, so none of its checkpoints is the best")
    return path, step
