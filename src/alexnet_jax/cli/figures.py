"""`figures`: draw the kernels, predictions and learning curves of a trained network."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from alexnet_jax.analysis.examples import ExampleOptions
from alexnet_jax.analysis.index import Index
from alexnet_jax.analysis.report import draw_figures
from alexnet_jax.cli.parsing import parse
from alexnet_jax.cli.process import configure_process
from alexnet_jax.data.find import find_training_dataset
from alexnet_jax.weights.trained_model import load


@dataclass(frozen=True)
class Figures:
    """Draw learning curves, first-layer kernels and their colors, predictions and retrieved images, and write report.html.

    Attributes:
      run: run folder, checkpoint RUN/checkpoints/STEP, or .safetensors file.
      to: folder to write to; None uses the run folder, or the path of the .safetensors file without its suffix.
      best: for a run folder, use the checkpoint with the smallest validation error instead of the latest one.
      data: a folder of images, a prepared data set, or a name in --data-dir; None uses the network's training data.
      data_dir: folder of prepared data sets.
      split: split of the images to classify; None uses validation, or test if there is no validation split.
      index: index of the training images, built by `alexnet-jax index`, to search instead of a sample of the images,
        by its binary codes if it has any.
      examples: selection of the images to show.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    to: Path | None = None
    best: bool = False
    data: str | None = None
    data_dir: Path = Path("data")
    split: str | None = None
    index: Path | None = None
    examples: Annotated[ExampleOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ExampleOptions)


def run(arguments: list[str]) -> None:
    """Draw the figures and print the path of the page."""
    command = parse(Figures, "figures", arguments)
    configure_process()
    index = None if command.index is None else Index(command.index)
    model = load(command.run, best=command.best)
    dataset = find_training_dataset(command.data, model.config.data.path, command.data_dir)
    split = command.split or dataset.evaluation_split
    print(draw_figures(model, dataset, split, command.to or model.output_dir, command.examples, index))
