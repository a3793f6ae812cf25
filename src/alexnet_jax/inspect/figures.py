"""The pictures of a run and the page that shows them all: what `python -m alexnet_jax figures` makes, and training at its end."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from jaxtyping import Float

from alexnet_jax.data.locate import find_again
from alexnet_jax.errors import full_disk_told
from alexnet_jax.inspect.colors import color_statistics, draw_colors, told
from alexnet_jax.inspect.examples import Choice, Examples, find_examples
from alexnet_jax.inspect.figure4 import draw_predictions, draw_retrieved
from alexnet_jax.inspect.page import Content, page
from alexnet_jax.inspect.pictures import draw_curves, draw_kernels
from alexnet_jax.layers import Weighted
from alexnet_jax.retrieval.index import Index
from alexnet_jax.run import Run
from alexnet_jax.trained import Trained, load

PAGE = "report.html"


@dataclass(frozen=True)
class Figures:
    """Draws what a network has learned: curves, kernels and their colours, predictions, retrieval; and a page of all."""

    run: tyro.conf.Positional[Path]
    """Run folder, one of its checkpoints, RUN/checkpoints/STEP, or a .safetensors file."""
    to: Path | None = None
    """Folder to write to; None is that of the run, or one beside the file, under its name."""
    best: bool = False
    """Of a run, take the checkpoint with the smallest validation error instead of the last."""
    data: str | None = None
    """A folder of images, a prepared folder, or a name in the data folder; None is what the network was trained on."""
    data_dir: Path = Path("data")
    """Folder of prepared data sets."""
    split: str | None = None
    """Whose images to look at; None is the split that errors are measured on."""
    index: Path | None = None
    """Of the training images by `index`: all of them are searched, not only some."""
    choice: Annotated[Choice, tyro.conf.OmitArgPrefixes] = field(default_factory=Choice)


def draw_figures(command: Figures) -> Path:
    """Makes all that there is to see of a run; prints how coloured its kernels are.

    Returns:
      The page.

    Raises:
      UserError: if the run, its data set or the index cannot be read, or the disk is full.
    """
    index = None if command.index is None else Index(command.index)
    trained = load(command.run, best=command.best)
    dataset = find_again(command.data, trained.config["data"]["path"], command.data_dir)
    examples = find_examples(trained, dataset, command.split or dataset.evaluation_split, command.choice, index)
    run, to = None if trained.folder != trained.run else Run(trained.run, fresh=False), command.to or trained.folder
    result, log = (run.result, run.log_lines()) if run else (None, [])
    name = result["experiment"] if result else trained.network.name
    title, kernels = f"{name} on {Path(trained.config['data']['path']).name}", first_kernels(trained)
    colors = color_statistics(kernels)
    with full_disk_told(f"for the figures in {to}"):
        to.mkdir(parents=True, exist_ok=True)
        if log:
            draw_curves(log, to / "curves.png", title=title)
        draw_kernels(kernels, to / "kernels.png")
        draw_colors(colors, to / "colors.png")
        (to / "colors.json").write_text(json.dumps(colors) + "\n")
        draw_predictions(examples.predictions, to / "predictions.png")
        draw_retrieved(examples.retrieved, to / "retrieval.png")
        about = {"config": trained.config, "result": result, "log": log, "versions": trained.versions}
        file = write_page(to, title=title, kernels=kernels, examples=examples, **about)
    print(told(colors))
    return file


def write_page(
    to: Path,
    *,
    title: str,
    config: dict[str, Any],
    result: dict[str, Any] | None,
    log: list[dict[str, Any]],
    kernels: Float[np.ndarray, "towers size size 3 features"],
    examples: Examples | str,
    versions: dict[str, str],
) -> Path:
    """Writes the page of a network, whole or not at all, with the kernels and, if there is a log, the curves that have been drawn
    in the folder `to`."""
    content = Content(
        title=title,
        config=config,
        result=result,
        epochs=[line for line in log if "epoch" in line],
        curves=(to / "curves.png").read_bytes() if log else None,
        kernels=(to / "kernels.png").read_bytes(),
        colors=color_statistics(kernels),
        examples=examples,
        versions=versions,
    )
    partial = to / f".{PAGE}.partial"
    partial.write_text(page(content), encoding="utf-8")
    return partial.rename(to / PAGE)


def first_kernels(trained: Trained) -> Float[np.ndarray, "towers size size 3 features"]:
    """The kernels that look at pixels."""
    first = next(name for name, layer in trained.network.named_layers.items() if isinstance(layer, Weighted))
    return np.asarray(trained.params[first]["kernel"])
