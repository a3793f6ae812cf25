"""State dicts of PyTorch, as .safetensors, which needs no PyTorch, or as .pt or .pth, which does.

A network in our layout goes out under its own names, with the mean image as a buffer: `experiments/pytorch_network.py` is the
module for it. torchvision's alexnet goes under its own.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.errors import UserError
from alexnet_jax.model.layers import Weighted
from alexnet_jax.model.network import Network
from alexnet_jax.model.relatives import TORCHVISION_ALEXNET
from alexnet_jax.weights.safetensors_file import read_tensors

TORCHVISION = {
    "conv1": "features.0", "conv2": "features.3", "conv3": "features.6", "conv4": "features.8", "conv5": "features.10",
    "fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6",
}  # fmt: skip
"""torchvision's names of our layers."""

TORCHVISION_MEAN = (123.675, 116.28, 103.53)
"""Red, green and blue, which torchvision subtracts; gray levels."""


def read_pytorch(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays by name, torchvision's as ours, and the metadata of a .safetensors file.

    Raises:
      UserError: if the file cannot be read, or holds anything but tensors.
    """
    tensors, metadata = _torch_file(path) if path.suffix in (".pt", ".pth") else read_tensors(path)
    return {_ours(name): array for name, array in tensors.items()}, metadata


def is_torchvisions(network: Network) -> bool:
    """Whether it is torchvision's alexnet, whatever its widths and classes."""
    return network.towers == 1 and _without_widths(network) == _without_widths(TORCHVISION_ALEXNET)


def to_torchvision(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays by torchvision's names."""
    made: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        layer, _, kind = name.rpartition(".")
        made[f"{TORCHVISION[layer]}.{kind}"] = array
    return made


def _ours(name: str) -> str:
    layer, _, kind = name.rpartition(".")
    names = {theirs: ours for ours, theirs in TORCHVISION.items()}
    return f"{names[layer]}.{kind}" if layer in names else name


def _without_widths(network: Network) -> list[Any]:
    return [layer.clone(features=1) if isinstance(layer, Weighted) else layer for layer in network.layers]


def _torch_file(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        import torch  # pyright: ignore[reportMissingImports]  (an extra)
    except ImportError as error:
        raise UserError(f"{path} needs PyTorch: pip install torch, or save the state dict as .safetensors") from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(loaded, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in loaded.values()):
        raise UserError(f"{path} is no state dict: torch.save(module.state_dict(), …) makes one")
    return {name: tensor.detach().float().numpy() for name, tensor in loaded.items()}, {}
