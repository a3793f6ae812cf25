"""An exported network in PyTorch: a file to take along, which needs PyTorch and safetensors alone.

    python -m alexnet_jax export RUN --to network.safetensors --layout pytorch

    from pytorch_network import load
    network = load("network.safetensors").eval()
    logits = network(images)    # [batch, 3, size, size], red, green and blue, gray levels 0 to 255, the center of an image

It is an `nn.Sequential` under our layers' names: its state dict has "conv1.weight", "conv1.bias", …, and the mean image, as the
buffer "mean_image" [3, size, size]. Towers are groups of maps, and a tower that reads its own part is a grouped convolution.
"""

# pyright: reportMissingImports=false
# PyTorch is not part of the development set-up: the targets that need it install it.
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

Settings = dict[str, Any]
"""A layer as the metadata of the file describes it."""


def load(file: str | Path) -> "Network":
    """The network of an exported file, in training mode, as PyTorch begins."""
    with safe_open(file, framework="pt") as opened:
        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return Network(json.loads(opened.metadata()["network"]), state)


class Network(nn.Sequential):
    """A network from the description in the metadata, and its state dict."""

    mean_image: torch.Tensor

    def __init__(self, described: Settings, state: dict[str, torch.Tensor]):
        super().__init__()
        self.register_buffer("mean_image", torch.empty_like(state["mean_image"]))
        towers, weighted = described["towers"], ""
        for number, settings in enumerate(described["layers"]):
            name = settings.get("name", f"{weighted}/{number}")
            weight = state.get(f"{name}.weight")
            if weight is None:
                layer = WITHOUT_WEIGHTS[settings["layer"]](settings, towers)
            else:
                # The towers read the same pixels; from then on each has its own maps.
                layer = _with_weights(settings, weight, 1 if settings["reads"] == "all" or not weighted else towers)
                weighted = name
            self.add_module(name, layer)
        self.load_state_dict(state)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        border, size = (self.mean_image.shape[-1] - input.shape[-1]) // 2, input.shape[-1]
        return super().forward(input - self.mean_image[:, border : border + size, border : border + size])


class Conv(nn.Conv2d):
    """With zeros (before, after) the image."""

    def __init__(self, settings: Settings, inputs: int, outputs: int, groups: int):
        super().__init__(inputs, outputs, settings["kernel"], settings["stride"], groups=groups)
        self.zeros = tuple(settings["padding"]) * 2

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(F.pad(input, self.zeros))


class Dense(nn.Linear):
    """Of maps as (channel, row, column)."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.flatten(1))


class ResponseNorm(nn.Module):
    """Across the maps of a tower. PyTorch divides alpha by the window's size."""

    def __init__(self, settings: Settings, towers: int):
        super().__init__()
        size = settings["size"]
        self.towers = towers
        self.settings = {"size": size, "alpha": size * settings["alpha"], "beta": settings["beta"], "k": settings["k"]}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([F.local_response_norm(of_tower, **self.settings) for of_tower in x.chunk(self.towers, 1)], 1)


class SameMapNorm(nn.Module):
    """Over a square of each map."""

    def __init__(self, settings: Settings, towers: int):
        super().__init__()
        self.settings = settings

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size, alpha = self.settings["size"], self.settings["alpha"]
        squares = size**2 * F.avg_pool2d(x * x, size, stride=1, padding=size // 2)
        return x * (self.settings["k"] + alpha * squares) ** -self.settings["beta"]


class Dropout(nn.Module):
    """The paper's: at test all units, times `keep`."""

    def __init__(self, settings: Settings, towers: int):
        super().__init__()
        self.keep = settings["keep"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (torch.rand_like(x) < self.keep if self.training else self.keep)


class Standardize(nn.Module):
    """Divides colors by their deviations."""

    deviation: torch.Tensor

    def __init__(self, settings: Settings, towers: int):
        super().__init__()
        self.register_buffer("deviation", torch.tensor(settings["deviation"])[:, None, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / self.deviation


WITHOUT_WEIGHTS = {
    "ReLU": lambda settings, towers: nn.ReLU(),
    "MaxPool": lambda settings, towers: nn.MaxPool2d(settings["size"], settings["stride"], ceil_mode=True),
    "LocalResponseNorm": ResponseNorm,
    "SameMapNorm": SameMapNorm,
    "Dropout": Dropout,
    "InvertedDropout": lambda settings, towers: nn.Dropout(1 - settings["keep"]),
    "Standardize": Standardize,
}


def _with_weights(settings: Settings, weight: torch.Tensor, groups: int) -> nn.Module:
    if settings["layer"] == "Dense":
        return Dense(weight.shape[1], weight.shape[0])
    groups *= settings.get("groups", 1)
    return Conv(settings, weight.shape[1] * groups, weight.shape[0], groups)
