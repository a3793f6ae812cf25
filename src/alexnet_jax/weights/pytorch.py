"""Reader of PyTorch state dicts, and conversion to and from torchvision's layer names.

State dicts are read from .safetensors files, or from .pt and .pth files, which requires PyTorch. A model is exported under this
project's layer names, with the mean image as a buffer, for the module in `experiments/benchmarks/pytorch_network.py`; or, for
torchvision's alexnet, under torchvision's names.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.errors import UserError
from alexnet_jax.model.layers import WeightedLayer
from alexnet_jax.model.network import Network
from alexnet_jax.model.relatives import TORCHVISION_ALEXNET
from alexnet_jax.weights.safetensors_file import read_tensors

TORCHVISION = {
    "conv1": "features.0", "conv2": "features.3", "conv3": "features.6", "conv4": "features.8", "conv5": "features.10",
    "fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6",
}  # fmt: skip
"""Layer names of torchvision's alexnet, keyed by this project's layer names."""

TORCHVISION_MEAN = (123.675, 116.28, 103.53)
"""Per-channel mean (red, green, blue; 0 to 255) that torchvision subtracts."""


def read_pytorch(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a PyTorch state dict.

    Args:
      path: .safetensors, .pt or .pth file.

    Returns:
      Arrays by name, with torchvision's layer names replaced by this project's, and the metadata of a .safetensors file,
      which is empty for .pt and .pth files.

    Raises:
      UserError: if the file cannot be read, or contains values other than tensors.
    """
    tensors, metadata = _read_torch_file(path) if path.suffix in (".pt", ".pth") else read_tensors(path)
    return {_from_torchvision_name(name): array for name, array in tensors.items()}, metadata


def is_torchvision_alexnet(network: Network) -> bool:
    """Return whether the architecture is torchvision's alexnet, ignoring widths and number of classes."""
    return network.towers == 1 and _without_widths(network) == _without_widths(TORCHVISION_ALEXNET)


def to_torchvision(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename the arrays of a state dict to torchvision's names."""
    renamed: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        layer, _, kind = name.rpartition(".")
        renamed[f"{TORCHVISION[layer]}.{kind}"] = array
    return renamed


def _from_torchvision_name(name: str) -> str:
    layer, _, kind = name.rpartition(".")
    names = {torchvision_name: layer_name for layer_name, torchvision_name in TORCHVISION.items()}
    return f"{names[layer]}.{kind}" if layer in names else name


def _without_widths(network: Network) -> list[Any]:
    return [layer.clone(features=1) if isinstance(layer, WeightedLayer) else layer for layer in network.layers]


def _read_torch_file(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        import torch  # noqa: PLC0415  # pyright: ignore[reportMissingImports]  (optional)
    except ImportError as error:
        raise UserError(f"reading {path} needs PyTorch: pip install torch, or save the state dict as .safetensors") from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
    if not isinstance(loaded, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in loaded.values()):
        raise UserError(f"{path} is not a state dict: save one with torch.save(module.state_dict(), PATH)")
    return {name: tensor.detach().float().numpy() for name, tensor in loaded.items()}, {}
