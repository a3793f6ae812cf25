"""`import`: convert weights of PyTorch, torchvision or Caffe into a file that all commands accept."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from alexnet_jax.cli.parsing import parse
from alexnet_jax.errors import UserError
from alexnet_jax.files import is_same_file
from alexnet_jax.weights.import_weights import import_weights
from alexnet_jax.weights.means import ColorOrder
from alexnet_jax.weights.trained_model import check_suffix, save


@dataclass(frozen=True)
class Import:
    """Convert weights of PyTorch, torchvision or Caffe into a file that all commands accept.

    Attributes:
      file: PyTorch state dict, as .safetensors, .pth, .pt or .bin, or a folder of shards; or Caffe weights as .caffemodel, .npz,
        .h5, .npy or a folder of .npy files.
      to: .safetensors file to write.
      network: name of the network, as for `summary`; None uses the network recorded in the file.
      mean: mean image or mean color, .binaryproto or .npy; None uses the one in the file, or the color means of Caffe or
        torchvision.
      classes: text file (UTF-8) with one class name per line, ordered by label, or a prepared data set; None uses the names
        recorded in the file, or numbers if there are none.
      mean_colors: order of the channels in the mean, if it cannot be recognized.
      image_size: side to which images are scaled before they are cropped, pixels; None uses the one in the file, or 256 for crops
        of 224 or 227 pixels.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    to: Path
    network: str | None = None
    mean: Path | None = None
    classes: Path | None = None
    mean_colors: ColorOrder | None = None
    image_size: int | None = None


def run(arguments: list[str]) -> None:
    """Convert the weights and print the path of the file."""
    print(import_file(parse(Import, "import", arguments)))


def import_file(command: Import) -> Path:
    """Write the converted file and return its path.

    Raises:
      UserError: if a file cannot be read or would be overwritten, or the network is unknown or does not match the weights.
    """
    file = check_suffix(command.to)
    if is_same_file(file, command.file) or (file.exists() and is_same_file(file.parent, command.file)):  # a folder of shards
        raise UserError(f"{file} is a file to import: choose a different --to")
    model = import_weights(
        command.file,
        command.network,
        mean=command.mean,
        classes=command.classes,
        mean_colors=command.mean_colors,
        image_size=command.image_size,
    )
    save(model, file)
    return file
