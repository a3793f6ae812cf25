"""`import`: convert weights of PyTorch, torchvision or Caffe into a file that all commands accept."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from alexnet_jax.cli.parsing import parse
from alexnet_jax.weights.import_weights import import_weights
from alexnet_jax.weights.trained_model import check_suffix, save


@dataclass(frozen=True)
class Import:
    """Convert weights of PyTorch, torchvision or Caffe into a file that all commands accept.

    Attributes:
      file: .safetensors, .pt or .pth file with a PyTorch state dict, or Caffe weights as .caffemodel, .npz, .h5 or a folder of
        .npy files.
      to: .safetensors file to write.
      network: name of the network, one of `alexnet_jax.NETWORKS`; None uses the network recorded in the file.
      mean: mean image, .binaryproto or .npy; None uses the one in the file, or the color means of Caffe or torchvision.
      classes: text file with one class name per line, ordered by label, or a prepared data set; None uses the names recorded in
        the file, or numbers if there are none.
    """

    file: tyro.conf.Positional[Path]
    to: Path
    network: str | None = None
    mean: Path | None = None
    classes: Path | None = None


def run(arguments: list[str]) -> None:
    """Convert the weights and print the path of the file."""
    print(import_file(parse(Import, "import", arguments)))


def import_file(command: Import) -> Path:
    """Write the converted file and return its path.

    Raises:
      UserError: if a file cannot be read, the weights do not match the network, or the network is unknown.
    """
    file = check_suffix(command.to)
    save(import_weights(command.file, command.network, mean=command.mean, classes=command.classes), file)
    return file
