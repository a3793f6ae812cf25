"""Color statistics of first-layer kernels.

In the paper, GPU 1 learned largely color-agnostic kernels and GPU 2 largely color-specific ones (section 6.1).
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from alexnet_jax.analysis.plots import save_figure

BINS = 20
MEASURE = "fraction of a kernel's energy outside the gray axis: 0 for gray kernels, 2/3 for noise, 1 if the channels sum to zero"


def color_fractions(kernels: Float[np.ndarray, "towers size size 3 features"]) -> Float[np.ndarray, "towers features"]:
    """Return the fraction of each kernel's energy outside the gray axis.

    The fraction is 1 - |g|² / |w|², where w are the weights of a kernel, g is the projection of each of its (red, green, blue)
    points on the gray axis (1, 1, 1), and the squares are summed over the kernel. A kernel with fraction 1 does not respond to
    gray images. Independent weights have an expected fraction of 2/3, since two of three dimensions are orthogonal to the axis.
    The fraction of an all-zero kernel is 0.
    """
    energy = np.square(kernels).sum(axis=(1, 2, 3))
    gray = np.square(kernels.sum(axis=3)).sum(axis=(1, 2)) / 3
    return np.clip(1 - gray / np.where(energy > 0, energy, 1), 0, 1) * (energy > 0)


def color_statistics(kernels: Float[np.ndarray, "towers size size 3 features"]) -> dict[str, Any]:
    """Return JSON-serializable color statistics per tower: number of kernels, and mean, median and histogram of the fractions."""
    towers = [
        {
            "kernels": len(fractions),
            "mean": round(float(fractions.mean()), 4),
            "median": round(float(np.median(fractions)), 4),
            "histogram": np.histogram(fractions, BINS, (0, 1))[0].tolist(),
        }
        for fractions in color_fractions(kernels)
    ]
    return {"measure": MEASURE, "towers": towers}


def format_color_statistics(statistics: dict[str, Any]) -> str:
    """Return one line per tower with its number of kernels and mean color fraction."""
    towers = enumerate(statistics["towers"])
    return "\n".join(f"tower {n}: {tower['kernels']} kernels, mean color fraction {tower['mean']:.0%}" for n, tower in towers)


def draw_colors(statistics: dict[str, Any], file: Path) -> None:
    """Draw a histogram of the color fractions for each tower, with tower 0 at the top, as in the figure of the kernels."""
    towers = statistics["towers"]
    figure = Figure(figsize=(7, 1 + 1.4 * len(towers)), layout="constrained")
    rows = figure.subplots(len(towers), 1, sharex=True, sharey=True, squeeze=False)
    edges = np.linspace(0, 1, BINS + 1)
    for number, (axes, tower) in enumerate(zip(rows[:, 0], towers, strict=True)):
        axes.bar(edges[:-1], tower["histogram"], 1 / BINS, align="edge", color="tab:blue")
        axes.axvline(tower["mean"], color="black", linewidth=1)
        axes.annotate(
            f"mean {tower['mean']:.0%}",
            (tower["mean"], 1),
            (4, -12),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
        )
        axes.set(ylabel=f"tower {number}\nkernels", xlim=(0, 1))
    rows[-1, 0].set_xlabel("color fraction of a kernel's energy (noise: 2/3)")
    save_figure(figure, file)
