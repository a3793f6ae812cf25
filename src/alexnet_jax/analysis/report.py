"""Figures of a trained network and the HTML page that shows them."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from alexnet_jax.analysis.examples import ExampleOptions, Examples, find_examples
from alexnet_jax.analysis.figure4 import draw_predictions, draw_retrievals
from alexnet_jax.analysis.html_page import ReportContent, html_page
from alexnet_jax.analysis.index import Index
from alexnet_jax.analysis.kernel_colors import color_statistics, draw_colors, format_color_statistics
from alexnet_jax.analysis.plots import draw_curves, draw_kernels
from alexnet_jax.console import console
from alexnet_jax.data.find import find_training_dataset
from alexnet_jax.data.records import Dataset
from alexnet_jax.errors import UserError, disk_full_as_user_error, one_line
from alexnet_jax.files import atomic_write
from alexnet_jax.model.layers import WeightedLayer
from alexnet_jax.parallel.distributed import is_main_process
from alexnet_jax.training.run_directory import RESULT, RunDirectory
from alexnet_jax.weights.trained_model import TrainedModel, load

PAGE = "report.html"
TRAINING_EXAMPLES = ExampleOptions(searched=2000)
"""Examples in the report written after training; few images are searched, so that this takes seconds on any data set."""


def write_training_report(folder: Path) -> None:
    """Draw the curves and first-layer kernels of a finished run and write its HTML page, unless it is newer than the result.

    If the examples cannot be computed, the page contains the reason instead. After multi-process training, all processes must
    call this function.

    Args:
      folder: run folder with `result.json`.

    Raises:
      UserError: if the disk is full, or the run's checkpoint cannot be read.
    """
    page, result = folder / PAGE, folder / RESULT
    if page.exists() and page.stat().st_mtime >= result.stat().st_mtime:
        return
    model = load(folder)
    if not is_main_process():
        return
    run = RunDirectory(folder)
    title, log = _title(model, run), run.log_lines()
    draw_curves(log, folder / "curves.png", title=title)
    draw_kernels(first_layer_kernels(model), folder / "kernels.png")
    try:  # an unexpected error here must not make a finished run fail
        with disk_full_as_user_error(f"for {page}; the training is finished"):
            _write_page(folder, model, run, _examples_or_reason(model))
    except UserError:
        raise
    except Exception as error:
        console.print(f"cannot write {page}: {error!r}", style="yellow", markup=False)


def draw_figures(
    model: TrainedModel,
    dataset: Dataset,
    split: str,
    folder: Path,
    options: ExampleOptions,
    index: Index | None = None,
) -> Path:
    """Draw all figures of a trained network, print the color statistics of its first-layer kernels, and return the HTML page.

    With an index of the training images, it is searched instead of a random sample of them, see `find_examples`.

    Raises:
      UserError: if the index was built with a different model, or the disk is full.
    """
    examples = find_examples(model, dataset, split, options, index)
    run = RunDirectory(model.path) if model.output_dir == model.path else None
    log, kernels = run.log_lines() if run else [], first_layer_kernels(model)
    colors = color_statistics(kernels)
    if log:
        draw_curves(log, folder / "curves.png", title=_title(model, run))
    draw_kernels(kernels, folder / "kernels.png")
    draw_colors(colors, folder / "colors.png")
    atomic_write(folder / "colors.json", (json.dumps(colors) + "\n").encode())
    draw_predictions(examples.predictions, folder / "predictions.png")
    draw_retrievals(examples.retrievals, folder / "retrieval.png")
    page = _write_page(folder, model, run, examples)
    print(format_color_statistics(colors))
    return page


def first_layer_kernels(model: TrainedModel) -> Float[np.ndarray, "towers size size 3 features"]:
    """Return the kernels of the first layer that has weights."""
    first = next(name for name, layer in model.network.named_layers.items() if isinstance(layer, WeightedLayer))
    return np.asarray(model.params[first]["kernel"])


def _title(model: TrainedModel, run: RunDirectory | None) -> str:
    result = run.result if run else None
    return f"{result['config'] if result else model.network.name} on {Path(model.config.data.path).name}"


def _write_page(folder: Path, model: TrainedModel, run: RunDirectory | None, examples: Examples | str) -> Path:
    """Write the HTML page. kernels.png and, if the run has a log, curves.png must exist in `folder`."""
    log: list[dict[str, Any]] = run.log_lines() if run else []
    content = ReportContent(
        title=_title(model, run),
        config=run.config if run else model.config.to_json(),
        result=run.result if run else None,
        epochs=[line for line in log if "epoch" in line],
        curves=(folder / "curves.png").read_bytes() if log else None,
        kernels=(folder / "kernels.png").read_bytes(),
        colors=color_statistics(first_layer_kernels(model)),
        confusions=run.read_confusions() if run else None,
        examples=examples,
        versions=model.versions,
    )
    atomic_write(folder / PAGE, html_page(content).encode())
    return folder / PAGE


def _examples_or_reason(model: TrainedModel) -> Examples | str:
    command = f"alexnet-jax figures {model.path}"
    if jax.process_count() > 1:  # a predictor in one process would wait for the devices of the others
        return f"Omitted after multi-process training. To add them, run: {command}"
    try:
        dataset = find_training_dataset(None, model.config.data.path, Path("data"))
        return find_examples(model, dataset, dataset.evaluation_split, TRAINING_EXAMPLES)
    except Exception as error:
        reason = one_line(error)
        console.print(f"cannot add predictions and retrieval to {model.path / PAGE}: {reason}", style="yellow", markup=False)
        return f"Omitted ({reason}). Once this is fixed, run: {command}"
