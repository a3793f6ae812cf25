"""`export`: write a trained network to one file, in this program's layout or in PyTorch's."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from alexnet_jax.errors import UserError
from alexnet_jax.weights import pytorch, safetensors_file
from alexnet_jax.weights.state_dict import to_state_dict
from alexnet_jax.weights.trained_model import check_suffix, file_metadata, load, save

Layout = Literal["alexnet-jax", "pytorch", "torchvision"]
"""This program's, with the whole config of the run; or a PyTorch state dict, with this program's or torchvision's names."""


@dataclass(frozen=True)
class Export:
    """Write a trained network to one file, which every command reads like a run.

    Attributes:
      network: run folder, checkpoint RUN/checkpoints/STEP, or a file written by this command.
      to: .safetensors file to write.
      layout: "pytorch" is a state dict for `experiments/benchmarks/pytorch_network.py`; "torchvision", one for torchvision's
        alexnet.
      best: of a run, use the checkpoint with the smallest validation error.
    """

    network: tyro.conf.Positional[Path]
    to: Path
    layout: Layout = "alexnet-jax"
    best: bool = False


def run(arguments: list[str]) -> None:
    """Write the file and print its path."""
    command = tyro.cli(Export, prog="alexnet-jax export", args=arguments)
    print(export(command))


def export(command: Export) -> Path:
    """Write the file and return its path.

    Raises:
      UserError: if the network cannot be read, cannot be written in this layout, or the disk is full.
    """
    check_suffix(command.to)
    model = load(command.network, best=command.best)
    if command.layout == "alexnet-jax":
        save(model, command.to)
        return command.to
    network, mean = model.network, model.mean_image
    arrays = to_state_dict(network, model.params)
    if command.layout == "torchvision":
        if not pytorch.is_torchvisions(network):
            raise UserError(f"{network.name} is not torchvision's alexnet: use --layout pytorch")
        if not (mean == mean[0, 0]).all():
            raise UserError("torchvision subtracts one mean per color, this network a mean image: use --layout pytorch")
        arrays = pytorch.to_torchvision(arrays)
    else:
        arrays[safetensors_file.MEAN_IMAGE] = np.ascontiguousarray(mean.transpose(2, 0, 1))
    safetensors_file.write_tensors(command.to, arrays, file_metadata(model), layout=command.layout, format="pt")
    return command.to
