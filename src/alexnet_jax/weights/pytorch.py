"""Reader of PyTorch state dicts, and conversion to and from torchvision's layer names.

State dicts are read from .safetensors files and from files of `torch.save`, also in shards. A model is exported under this
project's layer names, with the mean image as a buffer, for the module in `pytorch_network.py`; or, for torchvision's alexnet,
under torchvision's names.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.errors import UserError
from alexnet_jax.model.layers import WeightedLayer
from alexnet_jax.model.network import Network
from alexnet_jax.model.relatives import TORCHVISION_ALEXNET
from alexnet_jax.weights.file_format import INDEX, Format, weights_format
from alexnet_jax.weights.safetensors_file import read_tensors
from alexnet_jax.weights.torch_file import read_torch_file

_WRAPPERS = ("module", "_orig_mod")
"""Parts of names that DataParallel, DistributedDataParallel and torch.compile add."""

TORCHVISION = {
    "conv1": "features.0", "conv2": "features.3", "conv3": "features.6", "conv4": "features.8", "conv5": "features.10",
    "fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6",
}  # fmt: skip
"""Layer names of torchvision's alexnet, keyed by this project's layer names."""

MODULE = Path(__file__).with_name("pytorch_network.py")
"""PyTorch module for exported networks, which `export` copies."""

TORCHVISION_MEAN = (123.675, 116.28, 103.53)
"""Per-channel mean (red, green, blue; 0 to 255) that torchvision subtracts."""


def read_pytorch(path: Path, file_format: Format) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a PyTorch state dict.

    Args:
      path: file of `torch.save`, .safetensors file, or folder or .index.json file of shards.
      file_format: "torch", "safetensors" or "sharded".

    Returns:
      Arrays by name, with torchvision's layer names replaced by this project's and without the prefixes of wrappers such as
      DistributedDataParallel; and the metadata of a .safetensors file, which is empty for other files.

    Raises:
      UserError: if a file cannot be read, or contains no state dict.
    """
    metadata: dict[str, str] = {}
    if file_format == "torch":
        tensors = read_torch_file(path)
    elif file_format == "sharded":
        tensors = _read_shards(path)
    else:
        tensors, metadata = read_tensors(path)
    names = _layer_names(list(tensors), path)
    return {names[name]: array for name, array in tensors.items()}, metadata


def is_module(file: Path) -> bool:
    """Return whether a file is a copy of `MODULE`, of any version of this package, which may be replaced."""
    return file.is_file() and file.read_bytes().startswith(MODULE.read_bytes().split(b";")[0])


def is_torchvision_alexnet(network: Network) -> bool:
    """Return whether the architecture is torchvision's alexnet, ignoring widths and number of classes."""
    return network.towers == 1 and _without_widths(network) == _without_widths(TORCHVISION_ALEXNET)


def to_torchvision(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename the arrays of a state dict to torchvision's names."""
    parts = ((*name.rsplit(".", 1), array) for name, array in arrays.items())
    return {f"{TORCHVISION[layer]}.{kind}": array for layer, kind, array in parts}


def _layer_names(names: list[str], path: Path) -> dict[str, str]:
    """Return this project's name of each array: without the names of wrappers, and with torchvision's layer names replaced."""
    parts = {name: [part for part in name.split(".") if part not in _WRAPPERS] for name in names}
    while parts and len({each[0] for each in parts.values() if each}) == 1 and all(len(each) > 2 for each in parts.values()):
        parts = {name: each[1:] for name, each in parts.items()}  # the name of an attribute that holds the network
    layers = {torchvision_name: layer_name for layer_name, torchvision_name in TORCHVISION.items()}
    renamed: dict[str, str] = {}
    for name, each in parts.items():
        layer, _, kind = ".".join(each).rpartition(".")
        renamed[name] = f"{layers.get(layer, layer)}.{kind}" if layer else kind
    if len(set(renamed.values())) < len(names):
        raise UserError(f"{path} contains a layer twice, as in {', '.join(names)}: save one state dict")
    return renamed


def _read_shards(path: Path) -> dict[str, np.ndarray]:
    """Read a state dict that is divided among files, which a file NAME.index.json lists."""
    index = path if path.is_file() else next(iter(sorted(path.glob(f"*{INDEX}"))))
    try:
        files: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
        if not files or not all(isinstance(name, str) and Path(name).name == name for name in files.values()):
            raise ValueError("weight_map does not name files in the same folder")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{index} is damaged ({str(error)[:100]}): download it again") from error
    tensors: dict[str, np.ndarray] = {}
    for name in sorted(set(files.values())):
        shard, shard_format = index.parent / name, weights_format(index.parent / name)
        if shard_format not in ("torch", "safetensors"):
            raise UserError(f"{shard} is not a PyTorch state dict: download it again")
        content = read_torch_file(shard) if shard_format == "torch" else read_tensors(shard)[0]
        expected = {key for key, file in files.items() if file == name}
        if content.keys() != expected:
            difference = ", ".join(sorted(content.keys() ^ expected))
            raise UserError(f"{shard} and {index} do not list the same arrays ({difference}): download both again")
        tensors |= content
    return tensors


def _without_widths(network: Network) -> list[Any]:
    return [layer.clone(features=1) if isinstance(layer, WeightedLayer) else layer for layer in network.layers]
