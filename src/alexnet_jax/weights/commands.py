"""The commands `export` and `import`: a trained network as one file, in our layout or in that of others."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from alexnet_jax.errors import UserError
from alexnet_jax.trained import about, checked_name, load, save
from alexnet_jax.weights import model, pytorch
from alexnet_jax.weights.importing import import_weights
from alexnet_jax.weights.state_dict import to_state_dict

Layout = Literal["alexnet-jax", "pytorch", "torchvision"]
"""Ours, with everything of a run; or a state dict for PyTorch, by our names or by torchvision's."""


@dataclass(frozen=True)
class Export:
    """Write a trained network to one file, from which every command can read it as from a run.

    Attributes:
      network: run folder, checkpoint RUN/checkpoints/STEP, or a file that this command has written.
      to: the .safetensors file.
      layout: "pytorch" is a state dict for `experiments/pytorch_network.py`; "torchvision", one for torchvision's alexnet.
      best: of a run, take the checkpoint with the smallest validation error.
    """

    network: tyro.conf.Positional[Path]
    to: Path
    layout: Layout = "alexnet-jax"
    best: bool = False


@dataclass(frozen=True)
class Import:
    """Make a network that others have trained, or that has been exported to PyTorch, one that every command can read.

    Attributes:
      file: .safetensors, .pt or .pth with a state dict of PyTorch; .caffemodel, .npz, .h5 or a folder of .npy from Caffe.
      to: the .safetensors file to write.
      network: what it is, a name of `summary`; None is what the file says.
      mean: mean image, .binaryproto or .npy; None is that of the file, or the colours its makers subtract.
      classes: file with a name in every line, in the order of the labels, or a prepared data set; None is what the file says,
        or numbers.
    """

    file: tyro.conf.Positional[Path]
    to: Path
    network: str | None = None
    mean: Path | None = None
    classes: Path | None = None


def export(command: Export) -> Path:
    """Writes the file.

    Raises:
      UserError: if the network cannot be read, or has no such layout, or the disk no room.
    """
    checked_name(command.to)
    trained = load(command.network, best=command.best)
    if command.layout == "alexnet-jax":
        save(trained, command.to)
        return command.to
    network, mean = trained.network, trained.mean_image
    arrays = to_state_dict(network, trained.params)
    if command.layout == "torchvision":
        if not pytorch.is_torchvisions(network):
            raise UserError(f"{network.name} is not torchvision's alexnet: take --layout pytorch")
        if not (mean == mean[0, 0]).all():
            raise UserError("torchvision subtracts a number for each colour, this network a mean image: take --layout pytorch")
        arrays = pytorch.to_torchvision(arrays)
    else:
        arrays[model.MEAN_IMAGE] = np.ascontiguousarray(mean.transpose(2, 0, 1))
    model.write_tensors(command.to, arrays, about(trained), layout=command.layout, format="pt")
    return command.to


def import_(command: Import) -> Path:
    """Writes the file.

    Raises:
      UserError: if what is to be read cannot be, or is not of the network, or the network is not known.
    """
    file = checked_name(command.to)
    save(import_weights(command.file, command.network, mean=command.mean, classes=command.classes), file)
    return file
