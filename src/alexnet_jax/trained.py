"""A network as a training has left it: what evaluation, figures and exports begin with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from alexnet_jax.checkpoint import read_about, read_parameters
from alexnet_jax.errors import UserError
from alexnet_jax.network import Network
from alexnet_jax.run import MEAN_IMAGE
from alexnet_jax.tower import HostParams
from alexnet_jax.weights.model import SUFFIX, read_model


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
      run: folder of its run, or the file it is in.
      step: after which it was saved.
      network: what it is.
      params: of the network, stacked along a first axis of towers, float32; NumPy arrays.
      mean_image: what is subtracted from images, grey levels, at the size that images are decoded to.
      config: of the run, see `run.configuration`.
      versions: of what has saved it.
    """

    run: Path
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
    def folder(self) -> Path:
        """Where what is made of it goes: into its run, or beside its file, under its name."""
        return self.run.with_suffix("") if self.run.suffix == SUFFIX else self.run

    def __str__(self) -> str:
        return f"{self.run} at step {self.step}"


def load(path: Path, *, best: bool = False) -> Trained:
    """The network of a run, of one of its checkpoints, or of a file.

    Args:
      path: a run folder, for its latest checkpoint, the folder of a checkpoint, RUN/checkpoints/STEP, or a .safetensors file
        that `export` or `import` has written.
      best: of a run, take the checkpoint with the smallest validation error instead.

    Raises:
      UserError: if there is no such checkpoint or file, or it cannot be read, or it is of another version.
    """
    if path.suffix == SUFFIX and not path.is_dir():
        about, params, mean_image = read_model(path)
        return _trained(path.resolve(), about["step"], about, params, mean_image)
    run, step = _checkpoint(path, best)
    about, params = read_parameters(run / "checkpoints" / str(step))
    file = run / MEAN_IMAGE
    try:
        mean_image = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file} cannot be read ({error}): go on with its training, which writes it again") from error
    return _trained(run, step, about, params, mean_image)


def _trained(run: Path, step: int, about: dict[str, Any], params: HostParams, mean_image: np.ndarray) -> Trained:
    config = about["config"]
    return Trained(run, step, Network.from_json(config["network"]), params, mean_image, config, about["versions"])


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
    step = read_about(path / "checkpoints" / str(steps[-1]))["best"]
    if step is None:
        raise UserError(f"{path} has measured no validation error yet, so none of its checkpoints is the best")
    return path, step
