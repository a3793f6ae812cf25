"""Rendering of `report.html`: a self-contained HTML page about a run, without scripts or external resources."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet_jax.analysis.confusion_matrix import MAX_CLASSES, row_fractions
from alexnet_jax.analysis.examples import Examples, LabeledImage, Prediction, Retrieval
from alexnet_jax.analysis.kernel_colors import BINS
from alexnet_jax.data.class_names import printed_names
from alexnet_jax.training.confusion import Confusions
from alexnet_jax.training.progress import format_duration

STYLE = Path(__file__).with_name("report.css")
"""Style sheet of the page."""
THUMBNAIL = 160
"""Maximum side of an example image, pixels."""
LISTED_CONFUSIONS = 20
"""Number of confusions that are listed if there are too many classes for the matrix."""


@dataclass(frozen=True)
class ReportContent:
    """Content of the HTML page.

    Attributes:
      title: title of the page.
      config: config of the run as JSON, see `RunConfig.to_json`.
      result: content of the run's result.json; None if training is not finished.
      epochs: lines of the run's log for each epoch, with errors if it was evaluated.
      curves: PNG file of the learning curves; None for a model without a training log.
      kernels: PNG file of the first-layer kernels.
      colors: result of `kernel_colors.color_statistics`.
      confusions: numbers of evaluation images by true and predicted class; None if they are not known.
      examples: predictions and retrieved images, or the reason why there are none.
      versions: versions of the software that saved the model.
    """

    title: str
    config: Mapping[str, Any]
    result: Mapping[str, Any] | None
    epochs: list[dict[str, Any]]
    curves: bytes | None
    kernels: bytes
    colors: dict[str, Any]
    confusions: Confusions | None
    examples: Examples | str
    versions: dict[str, str]


def html_page(content: ReportContent) -> str:
    """Render the page as HTML, with all text from file names and settings escaped."""
    parts = [
        f"<h1>{escape(content.title)}</h1>",
        _summary(content),
        _training(content.curves),
        _epochs(content.epochs),
        _confusions(content),
        "<h2>First-layer kernels</h2>",
        "<p>Kernels of tower 0, then of tower 1, as in the paper's Fig. 3.</p>" if len(content.colors["towers"]) > 1 else "",
        f"<img class='plate kernels' src='{_data_uri(content.kernels, 'png')}' alt='first-layer kernels'>",
        _colors(content.colors),
        _examples(content.examples),
        "<h2>Network</h2>",
        _network(content.config["network"]),
        "<h2>Configuration</h2>",
        _table({key: value for key, value in content.config.items() if key != "network"}),
        "<h2>Versions</h2>",
        _table(content.versions),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<meta name=viewport content='width=device-width'>\n"
        f"<title>{escape(content.title)}</title>\n<style>\n{STYLE.read_text()}</style>\n<main>\n{body}\n</main>\n</html>\n"
    )


def _training(curves: bytes | None) -> str:
    if curves is None:
        return ""
    return f"<h2>Training</h2>\n<img class=plate src='{_data_uri(curves, 'png')}' alt='loss and errors over training steps'>"


def _summary(content: ReportContent) -> str:
    """Return the main results of the run, as HTML."""
    if content.curves is None:
        return ""
    result = content.result
    if result is None:
        last = next((line for line in reversed(content.epochs) if "top1_error" in line), None)  # the last evaluated epoch
        errors = {"top-1 error": last["top1_error"], "top-5 error": last["top5_error"]} if last else {}
        tiles = {name: f"{value:.1%}" for name, value in errors.items() if value is not None}
        tiles["epochs so far"] = str(len(content.epochs))
    else:
        top5 = {} if result["top5_error"] is None else {"top-5 error": f"{result['top5_error']:.1%}"}
        tiles = {
            "top-1 error": f"{result['top1_error']:.1%}",
            **top5,
            f"loss on {result['images']:,} {result['split']} images": f"{result['loss']:.3f}",
            "epochs": str(result["epochs"]),
            "time": format_duration(result["seconds"]),
            "images per second": f"{result['images_per_second']:,.0f}",
        }
    divs = "".join(f"<div><b>{escape(value)}</b>{escape(name)}</div>" for name, value in tiles.items())
    return f"<div class=tiles>{divs}</div>"


def _epochs(epochs: list[dict[str, Any]]) -> str:
    columns = {
        "epoch": ("epoch", ""), "step": ("step", ","), "learning rate": ("rate", "g"), "loss": ("loss", ".3f"),
        "top-1 error": ("top1_error", ".1%"), "top-5 error": ("top5_error", ".1%"),
        "images": ("images", ","), "training top-1 error": ("training_error", ".1%"),
    }  # fmt: skip
    head = "<tr>" + "".join(f"<th>{title}" for title in columns)
    values = [[(line.get(name), spec) for name, spec in columns.values()] for line in epochs]
    rows = "".join("<tr>" + "".join("<td>—" if v is None else f"<td>{v:{spec}}" for v, spec in row) for row in values)
    return (
        f"<details><summary>Errors after each epoch</summary><table class=numbers>{head}{rows}</table></details>" if rows else ""
    )


def _confusions(content: ReportContent) -> str:
    """Return the confusion matrix, or for many classes the most frequent confusions, as HTML."""
    confusions, data, result = content.confusions, content.config["data"], content.result
    classes = printed_names(data["classes"], data.get("display_names", ()))
    if confusions is None or result is None or confusions.num_classes != len(classes):
        return ""
    head = f"<h2>Confusions</h2>\n<p>{confusions.total:,} {escape(result['split'])} images, center crop"
    if len(classes) > MAX_CLASSES:
        rows = "".join(
            f"<tr><td>{escape(classes[each.label])}<td>{escape(classes[each.prediction])}"
            f"<td>{each.images:,} of {each.class_images:,}"
            for each in confusions.most_frequent(LISTED_CONFUSIONS)
        )
        return f"{head}: the most frequent confusions.</p>\n<table><tr><th>class<th>predicted as<th>images{rows}</table>"
    fractions, rows = row_fractions(confusions), []
    for label, (name, counts) in enumerate(zip(classes, confusions.matrix.tolist(), strict=True)):
        cells = "".join(
            f"<td{' class=right' if label == prediction else ''} style='--p:{100 * fractions[label, prediction]:.0f}%'"
            f" title='{escape(name)} → {escape(classes[prediction])}'>{images or ''}"
            for prediction, images in enumerate(counts)
        )
        rows.append(f"<tr><th>{escape(name)}{cells}")
    columns = "".join(f"<th><span>{escape(name)}</span>" for name in classes)
    return (
        f"{head}: a row for each true class, a column for each predicted class. The darker a cell is, the larger is its fraction "
        f"of the row.</p>\n<div class=scroll><table class=confusions><tr><th>{columns}{''.join(rows)}</table></div>"
    )


def _colors(colors: dict[str, Any]) -> str:
    """Return a histogram of the color fractions for each tower, as HTML."""
    top = max(max(tower["histogram"]) for tower in colors["towers"])
    figures = []
    for number, tower in enumerate(colors["towers"]):
        bars = "".join(
            f"<rect x={bin_} y={top - count} width=.9 height={count} />" for bin_, count in enumerate(tower["histogram"])
        )
        mean = f"<line x1={BINS * tower['mean']:.2f} x2={BINS * tower['mean']:.2f} y1=0 y2={top} />"
        figures.append(
            f"<figure><svg viewBox='0 0 {BINS} {top}' preserveAspectRatio=none role=img>{bars}{mean}</svg>"
            f"<figcaption>tower {number}: {tower['kernels']} kernels, mean color fraction {tower['mean']:.0%} (line), "
            f"median {tower['median']:.0%}</figcaption></figure>"
        )
    return f"<div class=histograms>{''.join(figures)}</div><p class=note>Horizontal axis: {escape(colors['measure'])}.</p>"


def _examples(examples: Examples | str) -> str:
    if isinstance(examples, str):
        return f"<h2>Predictions and retrieval</h2>\n<p>{escape(examples)}</p>"
    predictions = "\n".join(map(_prediction, examples.predictions))
    retrievals = "\n".join(map(_retrieval, examples.retrievals))
    searched, training = f"{examples.num_searched:,}", f"{examples.num_training:,}"
    sample = f"all {training}" if searched == training else f"{searched} of {training}, drawn at random"
    sample += f", by {examples.code_bits}-bit codes" if examples.code_bits else ""
    return (
        "<h2>Predictions</h2>\n"
        f"<p>{escape(examples.split.capitalize())} images drawn at random, with their true classes and the five most probable "
        "classes predicted by the network; the true class is <span class=right>marked</span>.</p>\n"
        f"<div class=predictions>{predictions}</div>\n"
        "<h2>Retrieval</h2>\n"
        "<p>Each row starts with an image, followed by the training images that are nearest to it, by the Euclidean distance of "
        f"the last hidden layer's outputs (searched: {sample}).</p>\n"
        f"<div class=scroll><table class=retrieved>{retrievals}</table></div>"
    )


def _prediction(prediction: Prediction) -> str:
    label = prediction.image.label
    bars = "".join(
        f"<li{' class=right' if name == label else ''} style='--p:{100 * probability:.1f}%' title='{probability:.1%}'>"
        f"{escape(name)}</li>"
        for name, probability in prediction.top_classes
    )
    caption = escape(label or prediction.image.name)
    return f"<figure>{_image(prediction.image)}<figcaption>{caption}</figcaption><ol>{bars}</ol></figure>"


def _retrieval(retrieval: Retrieval) -> str:
    def cell(image: LabeledImage, note: str) -> str:
        mark = " class=right" if image.label == retrieval.query.label else ""
        return f"<td title='{escape(image.name)}'>{_image(image)}<br><span{mark}>{escape(image.label)}</span>{note}"

    query = f"<th title='{escape(retrieval.query.name)}'>{_image(retrieval.query)}<br>{escape(retrieval.query.label)}"
    neighbors = "".join(cell(image, f"<br><small>{distance:.4g}</small>") for image, distance in retrieval.neighbors)
    return f"<tr>{query}{neighbors}"


def _image(image: LabeledImage) -> str:
    thumbnail, content = Image.fromarray(np.ascontiguousarray(image.pixels)), BytesIO()
    thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
    thumbnail.save(content, "JPEG", quality=90)
    return f"<img src='{_data_uri(content.getvalue(), 'jpeg')}' alt='{escape(image.name)}'>"


def _network(network: Mapping[str, Any]) -> str:
    """Return a table of the layers and their hyperparameters, as HTML."""
    rows = []
    for layer in network["layers"]:
        hyperparameters = ", ".join(f"{key} {_text(value)}" for key, value in layer.items() if key not in ("layer", "name"))
        rows.append(f"<tr><th>{escape(layer.get('name', ''))}<td>{escape(layer['layer'])}<td>{escape(hyperparameters)}")
    towers = f"{network['towers']} towers" if network["towers"] > 1 else "one tower"
    side = network["input_size"]
    head = f"<p>{escape(network['name'])}: {towers}, images of {side}×{side} pixels.</p>"
    return f"{head}\n<div class=scroll><table>{''.join(rows)}</table></div>"


def _table(values: Mapping[str, Any]) -> str:
    rows = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += [f"<tr><th>{escape(key)}: {escape(str(name))}<td>{escape(_text(item))}" for name, item in value.items()]
        else:
            rows.append(f"<tr><th>{escape(key)}<td>{escape(_text(value))}")
    return f"<div class=scroll><table>{''.join(rows)}</table></div>"


def _text(value: Any) -> str:
    """Format a setting as text, with long lists shortened."""
    if value is None or value == []:
        return "none"
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        shown = ", ".join(map(str, value[:50]))
        return f"{shown} … ({len(value):,})" if len(value) > 50 else shown
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
