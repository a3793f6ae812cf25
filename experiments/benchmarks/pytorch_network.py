"""PyTorch module for exported networks; this file depends only on PyTorch and safetensors and can be copied to other projects.

    python -m alexnet_jax export RUN --to network.safetensors --layout pytorch

    from pytorch_network import load
    network = load("network.safetensors").eval()
    logits = network(images)    # center crops [batch, 3, size, size], RGB, 0 to 255

The network is an `nn.Sequential` with the layer names of alexnet_jax: its state dict contains "conv1.weight", "conv1.bias", …,
and the mean image as the buffer "mean_image", [3, size, size]. Towers are groups of channels; a layer whose towers read only
their own channels is a grouped convolution.
"""

# pyright: reportMissingImports=false
# PyTorch is not a development dependency; the make targets that need it install it.
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

LayerConfig = dict[str, Any]
"""Configuration of a layer in the metadata of an exported file."""


def load(file: str | Path) -> "Network":
    """Load the network in an exported file; like every new PyTorch module, it is in training mode."""
    with safe_open(file, framework="pt") as opened:
        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return Network(json.loads(opened.metadata()["network"]), state)


class Network(nn.Sequential):
    """Network from images, [batch, 3, size, size], to logits, [batch, classes].

    Args:
      description: configuration of the network in the metadata of an exported file.
      state: state dict.
    """

    mean_image: torch.Tensor

    def __init__(self, description: dict[str, Any], state: dict[str, torch.Tensor]):
        super().__init__()
        self.register_buffer("mean_image", torch.empty_like(state["mean_image"]))
        towers, last_weighted = description["towers"], ""
        for number, settings in enumerate(description["layers"]):
            name = settings.get("name", f"{last_weighted}/{number}")
            weight = state.get(f"{name}.weight")
            if weight is None:
                layer = LAYERS_WITHOUT_WEIGHTS[settings["layer"]](settings, towers)
            else:
                # All towers of the first layer read the same image, so it is not grouped.
                layer = _layer_with_weights(settings, weight, 1 if settings["reads"] == "all" or not last_weighted else towers)
                last_weighted = name
            self.add_module(name, layer)
        self.load_state_dict(state)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        border, size = (self.mean_image.shape[-1] - input.shape[-1]) // 2, input.shape[-1]
        return super().forward(input - self.mean_image[:, border : border + size, border : border + size])


class Conv(nn.Conv2d):
    """Convolution whose zero padding may differ between the start and the end of each spatial axis."""

    def __init__(self, settings: LayerConfig, inputs: int, outputs: int, groups: int):
        super().__init__(inputs, outputs, settings["kernel"], settings["stride"], groups=groups)
        self.zero_padding = tuple(settings["padding"]) * 2

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(F.pad(input, self.zero_padding))


class Dense(nn.Linear):
    """Dense layer that flattens feature maps in the order channel, row, column."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.flatten(1))


class ResponseNorm(nn.Module):
    """Local response normalization across the channels of each tower.

    PyTorch divides alpha by the window size, so alpha is multiplied by it here.
    """

    def __init__(self, settings: LayerConfig, towers: int):
        super().__init__()
        size = settings["size"]
        self.towers = towers
        self.settings = {"size": size, "alpha": size * settings["alpha"], "beta": settings["beta"], "k": settings["k"]}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([F.local_response_norm(tower, **self.settings) for tower in x.chunk(self.towers, 1)], 1)


class SameMapNorm(nn.Module):
    """Response normalization over a square window within each channel."""

    def __init__(self, settings: LayerConfig, towers: int):
        super().__init__()
        self.settings = settings

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size, alpha = self.settings["size"], self.settings["alpha"]
        squares = size**2 * F.avg_pool2d(x * x, size, stride=1, padding=size // 2)
        return x * (self.settings["k"] + alpha * squares) ** -self.settings["beta"]


class Dropout(nn.Module):
    """Dropout that scales activations by the keep probability at test time, as in the paper."""

    def __init__(self, settings: LayerConfig, towers: int):
        super().__init__()
        self.keep = settings["keep"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (torch.rand_like(x) < self.keep if self.training else self.keep)


class Standardize(nn.Module):
    """Division of each color channel by its standard deviation."""

    deviation: torch.Tensor

    def __init__(self, settings: LayerConfig, towers: int):
        super().__init__()
        self.register_buffer("deviation", torch.tensor(settings["deviation"])[:, None, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / self.deviation


LAYERS_WITHOUT_WEIGHTS = {
    "ReLU": lambda settings, towers: nn.ReLU(),
    "MaxPool": lambda settings, towers: nn.MaxPool2d(settings["size"], settings["stride"], ceil_mode=True),
    "LocalResponseNorm": ResponseNorm,
    "SameMapNorm": SameMapNorm,
    "Dropout": Dropout,
    "InvertedDropout": lambda settings, towers: nn.Dropout(1 - settings["keep"]),
    "Standardize": Standardize,
}


def _layer_with_weights(settings: LayerConfig, weight: torch.Tensor, groups: int) -> nn.Module:
    if settings["layer"] == "Dense":
        return Dense(weight.shape[1], weight.shape[0])
    groups *= settings.get("groups", 1)
    return Conv(settings, weight.shape[1] * groups, weight.shape[0], groups)
