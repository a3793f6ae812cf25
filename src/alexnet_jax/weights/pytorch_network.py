"""PyTorch module for exported networks; this file depends only on PyTorch, safetensors and Pillow.

`export` writes a copy of it beside the exported file, under the same name:

    alexnet-jax export RUN --to network.safetensors --layout pytorch    # also writes network.py

    from network import load
    network = load().eval()
    image = network.preprocess(Image.open("photo.jpg"))    # center crop [3, size, size], RGB, 0 to 255
    probabilities = network(image[None]).softmax(1)[0]     # of network.classes

or, on the command line, `python network.py photo.jpg` prints the five most probable classes.

The network is an `nn.Sequential` with the layer names of alexnet_jax: its state dict contains "conv1.weight", "conv1.bias", …,
and the mean image as the buffer "mean_image", [3, size, size]. Towers are groups of channels; a layer whose towers read only
their own channels is a grouped convolution.
"""

# pyright: reportMissingImports=false
# PyTorch is not a development dependency; the make targets that need it install it.
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from safetensors import safe_open
from torch import nn

LayerConfig = dict[str, Any]
"""Configuration of a layer in the metadata of an exported file."""


def load(file: str | Path | None = None) -> "Network":
    """Load the network in an exported file; call `eval` on it for inference.

    Args:
      file: file of `export --layout pytorch`; None uses the one beside this file.
    """
    file = Path(__file__).with_suffix(".safetensors") if file is None else file
    with safe_open(file, framework="pt") as opened:
        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        metadata = opened.metadata()
        names = json.loads(metadata.get("printed_classes", metadata["classes"]))
        return Network(json.loads(metadata["network"]), state, json.loads(metadata["classes"]), names)


class Network(nn.Sequential):
    """Network from images, [batch, 3, size, size], to logits, [batch, classes].

    Args:
      description: configuration of the network in the metadata of an exported file.
      state: state dict.
      classes: class names, ordered by label.
      printed_classes: class names to print; None uses `classes`.

    Attributes:
      classes: class names, ordered by label.
      printed_classes: class names to print, ordered by label.
      input_size: side of the images that the network takes, pixels.
      mean_image: mean image, [3, size, size], which the network subtracts; images are scaled to its size before they are cropped.
    """

    mean_image: torch.Tensor

    def __init__(
        self,
        description: dict[str, Any],
        state: dict[str, torch.Tensor],
        classes: list[str],
        printed_classes: list[str] | None = None,
    ):
        super().__init__()
        self.classes, self.printed_classes = classes, printed_classes or classes
        self.input_size = int(description["input_size"])
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
        """Return the logits, [batch, classes].

        Args:
          input: center crops, [batch, 3, size, size], RGB, 0 to 255.
        """
        border, size = (self.mean_image.shape[-1] - input.shape[-1]) // 2, input.shape[-1]
        return super().forward(input - self.mean_image[:, border : border + size, border : border + size])

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """Return the center crop of a photo, [3, size, size], RGB, 0 to 255.

        The shorter side is scaled to the size of the mean image, and the central square is used (paper, section 2). The network
        subtracts the mean. EXIF orientation is applied, and transparent pixels are blended with white.

        Args:
          image: image of Pillow.
        """
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
        elif image.mode in ("I", "F"):
            raise ValueError("32-bit pixels are not supported")
        if image.has_transparency_data:
            opaque = Image.new("RGBA", image.size, "white")
            opaque.alpha_composite(image.convert("RGBA"))
            image = opaque
        image = image.convert("RGB")
        side, size, crop = min(image.size), self.mean_image.shape[-1], self.input_size
        left, top = ((length - side) / 2 for length in image.size)
        square = image.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
        pixels = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8).reshape(size, size, 3)
        border = (size - crop) // 2
        cropped = pixels[border : border + crop, border : border + crop]
        return cropped.permute(2, 0, 1).float().to(self.mean_image.device)


class Conv(nn.Conv2d):
    """Convolution whose zero padding may differ between the start and the end of each spatial axis."""

    def __init__(self, settings: LayerConfig, inputs: int, outputs: int, groups: int):
        super().__init__(inputs, outputs, settings["kernel"], settings["stride"], groups=groups)
        self.zero_padding = tuple(settings["padding"]) * 2

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Apply the layer."""
        return super().forward(F.pad(input, self.zero_padding))


class Dense(nn.Linear):
    """Dense layer that flattens feature maps in the order channel, row, column."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Apply the layer."""
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
        """Apply the layer."""
        return torch.cat([F.local_response_norm(tower, **self.settings) for tower in x.chunk(self.towers, 1)], 1)


class SameMapNorm(nn.Module):
    """Response normalization over a square window within each channel."""

    def __init__(self, settings: LayerConfig, towers: int):
        super().__init__()
        self.settings = settings

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer."""
        size, alpha = self.settings["size"], self.settings["alpha"]
        squares = size**2 * F.avg_pool2d(x * x, size, stride=1, padding=size // 2)
        return x * (self.settings["k"] + alpha * squares) ** -self.settings["beta"]


class Dropout(nn.Module):
    """Dropout that scales activations by the keep probability at test time, as in the paper."""

    def __init__(self, settings: LayerConfig, towers: int):
        super().__init__()
        self.keep = settings["keep"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer."""
        return x * (torch.rand_like(x) < self.keep if self.training else self.keep)


class Standardize(nn.Module):
    """Division of each color channel by its standard deviation."""

    deviation: torch.Tensor

    def __init__(self, settings: LayerConfig, towers: int):
        super().__init__()
        self.register_buffer("deviation", torch.tensor(settings["deviation"])[:, None, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer."""
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


def main(photos: list[str]) -> None:
    """Print the five most probable classes of each photo, with the network in the file beside this one.

    Args:
      photos: image files.
    """
    network = load().eval()
    for photo in photos:
        with Image.open(photo) as image, torch.no_grad():
            top = network(network.preprocess(image)[None]).softmax(1)[0].topk(min(5, len(network.classes)))
        classes = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        print(f"{photo}: {', '.join(f'{network.printed_classes[label]} {probability:.1%}' for label, probability in classes)}")


if __name__ == "__main__":
    main(sys.argv[1:])
