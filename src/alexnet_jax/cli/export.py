"""`export`: write a trained network to a file, in the alexnet-jax layout or as a PyTorch state dict with its module."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from alexnet_jax.cli.parsing import parse
from alexnet_jax.errors import UserError
from alexnet_jax.files import atomic_write, is_same_file
from alexnet_jax.weights import pytorch, safetensors_file
from alexnet_jax.weights.state_dict import to_state_dict
from alexnet_jax.weights.trained_model import check_suffix, file_metadata, load, save

Layout = Literal["alexnet-jax", "pytorch", "torchvision"]
"""Layout of the file: parameters, mean image and config of the run ("alexnet-jax"), or a PyTorch state dict with the layer names
of this project ("pytorch") or of torchvision ("torchvision")."""


@dataclass(frozen=True)
class Export:
    """Write a trained network to a single file. Commands accept a file in the alexnet-jax layout instead of a run folder.

    Attributes:
      network: run folder, checkpoint RUN/checkpoints/STEP, or .safetensors file in the alexnet-jax layout.
      to: .safetensors file to write.
      layout: "alexnet-jax" is the layout that other commands read; "pytorch" is a PyTorch state dict, and a .py file of the same
        name with its module, which needs PyTorch, safetensors and Pillow only; "torchvision" is a PyTorch state dict for
        torchvision's alexnet.
      best: for a run folder, use the checkpoint with the smallest validation error instead of the latest one.
    """

    network: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    to: Path
    layout: Layout = "alexnet-jax"
    best: bool = False


def run(arguments: list[str]) -> None:
    """Write the file and print its path."""
    command = parse(Export, "export", arguments)
    print(export(command))


def export(command: Export) -> Path:
    """Write the file and return its path.

    Raises:
      UserError: if the network cannot be read, the layout cannot represent it, or the disk is full.
    """
    check_suffix(command.to)
    if is_same_file(command.to, command.network):
        raise UserError(f"{command.to} is the file to export: choose a different --to")
    module = command.to.with_suffix(".py")
    if command.layout == "pytorch" and module.exists() and not pytorch.is_module(module):
        raise UserError(f"{module} exists and is not a module of an earlier export: choose a different --to")
    model = load(command.network, best=command.best)
    if command.layout == "alexnet-jax":
        save(model, command.to)
        return command.to
    network, mean = model.network, model.mean_image
    if own := [type(layer).__name__ for layer in network.layers if not type(layer).__module__.startswith("alexnet_jax.")]:
        raise UserError(f"{own[0]} is a layer of your own, which the PyTorch module does not have: export without --layout")
    arrays = to_state_dict(network, model.params)
    if command.layout == "torchvision":
        if not pytorch.is_torchvision_alexnet(network):
            raise UserError(f"{network.name} is not torchvision's alexnet: use --layout pytorch")
        if not (mean == mean[0, 0]).all():
            raise UserError("torchvision subtracts one mean per color, and cannot use a mean image: use --layout pytorch")
        arrays = pytorch.to_torchvision(arrays)
    else:
        arrays[safetensors_file.MEAN_IMAGE] = np.ascontiguousarray(mean.transpose(2, 0, 1))
    safetensors_file.write_tensors(command.to, arrays, file_metadata(model), layout=command.layout, format="pt")
    if command.layout == "pytorch":
        atomic_write(module, pytorch.MODULE.read_bytes())
    return command.to
