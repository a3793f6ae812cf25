"""PNG figures of learning curves and first-layer kernels."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image

from alexnet_jax.files import atomic_write

SCALE = 4
"""Side of a kernel weight in the figure, screen pixels."""
GAP = 1
"""Distance between kernels, in weights."""
COLUMNS = 16
"""Maximum number of kernels per row."""
CORRECT, INCORRECT = "#e5989b", "#a8c0dd"
"""Colors of true classes and of others."""
DPI = 110
"""Resolution of figures with text, pixels per inch."""


def draw_curves(log: list[dict[str, Any]], file: Path, *, title: str) -> None:
    """Draw loss and errors over training steps, from the lines of the run's log.jsonl."""
    losses = [(line["step"], line["loss"]) for line in log if "epoch" not in line]
    epochs = [line for line in log if "epoch" in line]
    evaluated = [line for line in epochs if "top1_error" in line]
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(title)
    if losses:
        left.plot(*zip(*losses, strict=True), color="tab:blue", linewidth=0.8, label="training, one batch")
    if evaluated:
        steps = [line["step"] for line in evaluated]
        left.plot(steps, [line["loss"] for line in evaluated], "o-", color="tab:orange", markersize=3, label="validation")
        for key, label in (("top1_error", "top-1"), ("top5_error", "top-5")):
            if evaluated[0][key] is not None:  # there is no top-5 error of five classes
                right.plot(steps, [100 * line[key] for line in evaluated], "o-", markersize=3, label=f"{label}, validation")
    if epochs and "training_error" in epochs[-1]:  # with dropout and augmentation, so it can exceed the validation error
        errors = [100 * line.get("training_error", np.nan) for line in epochs]
        steps = [line["step"] for line in epochs]
        right.plot(steps, errors, "--", color="tab:gray", linewidth=1, label="top-1, training")
    left.set(xlabel="step", ylabel="loss, nats", ylim=(0, None))
    right.set(xlabel="step", ylabel="error, %", ylim=(0, 100))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.has_data():
            axes.legend()
    save_figure(figure, file)


def save_figure(figure: Figure, file: Path) -> None:
    """Write a figure as PNG atomically, with boxes for characters that are missing from the font."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(content, format="png", dpi=DPI)
    atomic_write(file, content.getvalue())


def save_image(image: Image.Image, file: Path) -> None:
    """Write an image as PNG atomically."""
    content = io.BytesIO()
    image.save(content, "PNG")
    atomic_write(file, content.getvalue())


def draw_kernels(kernels: Float[np.ndarray, "towers size size 3 features"], file: Path) -> None:
    """Draw first-layer kernels as color images, grouped by tower, with tower 0 at the top (paper, Fig. 3).

    Args:
      kernels: kernels of the first layer; each is scaled to the range of pixel values, 0 to 255.
      file: PNG file to write.
    """
    blocks = [_grid(tower) for tower in kernels]
    gap = np.full((3 * GAP, blocks[0].shape[1], 3), 255, np.uint8)
    pixels = np.concatenate([part for block in blocks for part in (block, gap)][:-1])
    image = Image.fromarray(pixels)
    save_image(image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.NEAREST), file)


def _grid(kernels: Float[np.ndarray, "size size 3 features"]) -> np.ndarray:
    size, _, _, features = kernels.shape
    columns = min(COLUMNS, features)
    rows = -(-features // columns)
    cell = size + GAP
    grid = np.full((rows * cell + GAP, columns * cell + GAP, 3), 255, np.uint8)
    for index in range(features):
        kernel = kernels[..., index]
        low, high = kernel.min(), kernel.max()
        row, column = divmod(index, columns)
        top, left = GAP + row * cell, GAP + column * cell
        grid[top : top + size, left : left + size] = 255 * (kernel - low) / max(high - low, 1e-12)
    return grid
