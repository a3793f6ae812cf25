"""How colored first-layer kernels are: the paper's GPU 1 became color-agnostic, its GPU 2 color-specific (section 6.1)."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

BINS = 20
MEASURE = (
    "share of a kernel's energy outside the gray axis: 0 if it is gray, 2/3 if it is noise, 1 if its channels add up to zero"
)


def color_shares(kernels: Float[np.ndarray, "towers size size 3 features"]) -> Float[np.ndarray, "towers features"]:
    """The share of each kernel's energy outside the gray axis.

    A weight is a point (red, green, blue), and gray is where the three are equal. The share is 1 - |g|² / |w|², where g is
    the projection of each point on (1, 1, 1), and the squares are summed over the kernel. Whatever light is gray passes a kernel
    with the share 1 unseen; independent weights have two dimensions of three outside the axis. A kernel of zeros counts as gray.
    """
    energy = np.square(kernels).sum(axis=(1, 2, 3))
    gray = np.square(kernels.sum(axis=3)).sum(axis=(1, 2)) / 3
    return np.clip(1 - gray / np.where(energy > 0, energy, 1), 0, 1) * (energy > 0)


def color_statistics(kernels: Float[np.ndarray, "towers size size 3 features"]) -> dict[str, Any]:
    """Shares of color by tower, as JSON: kernels, mean, median, and how many kernels there are in each bin from 0 to 1."""
    towers = [
        {
            "kernels": len(shares),
            "mean": round(float(shares.mean()), 4),
            "median": round(float(np.median(shares)), 4),
            "histogram": np.histogram(shares, BINS, (0, 1))[0].tolist(),
        }
        for shares in color_shares(kernels)
    ]
    return {"measure": MEASURE, "towers": towers}


def format_color_statistics(statistics: dict[str, Any]) -> str:
    """The statistics in a line for each tower."""
    towers = enumerate(statistics["towers"])
    return "\n".join(f"tower {n}: {of['kernels']} kernels, {of['mean']:.0%} color in the mean" for n, of in towers)


def draw_colors(statistics: dict[str, Any], file: Path) -> None:
    """Histograms of the shares, a row for each tower, tower 0 on top, as in the picture of the kernels."""
    towers = statistics["towers"]
    figure = Figure(figsize=(7, 1 + 1.4 * len(towers)), layout="constrained")
    rows = figure.subplots(len(towers), 1, sharex=True, sharey=True, squeeze=False)
    edges = np.linspace(0, 1, BINS + 1)
    for number, (axes, of) in enumerate(zip(rows[:, 0], towers, strict=True)):
        axes.bar(edges[:-1], of["histogram"], 1 / BINS, align="edge", color="tab:blue")
        axes.axvline(of["mean"], color="black", linewidth=1)
        axes.annotate(
            f"mean {of['mean']:.0%}", (of["mean"], 1), (4, -12), xycoords=("data", "axes fraction"), textcoords="offset points"
        )
        axes.set(ylabel=f"tower {number}\nkernels", xlim=(0, 1))
    rows[-1, 0].set_xlabel("share of a kernel's energy that is color (noise: 2/3)")
    figure.savefig(file, dpi=110)
