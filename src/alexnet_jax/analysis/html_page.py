"""A run on one page of HTML that needs no other file, no script and no network: `report.html`."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from alexnet_jax.analysis.examples import Examples, Picture, Prediction, Retrieved
from alexnet_jax.analysis.kernel_colors import BINS
from alexnet_jax.training.progress import format_duration

THUMBNAIL = 160  # screen pixels a side, at most


@dataclass(frozen=True)
class Content:
    """What the page is about.

    Attributes:
      title: of the page, for people.
      config: see `run.configuration`.
      result: of the run, if it is finished.
      epochs: lines of the log, one an epoch.
      curves: PNG file of the curves; None if nothing is known of the training.
      kernels: PNG file of the first layer's kernels.
      colors: see `colors.color_statistics`.
      examples: what the network makes of some images; in their place a line that says why there are none.
      versions: of what computed it.
    """

    title: str
    config: Mapping[str, Any]
    result: Mapping[str, Any] | None
    epochs: list[dict[str, Any]]
    curves: bytes | None
    kernels: bytes
    colors: dict[str, Any]
    examples: Examples | str
    versions: dict[str, str]


def html_page(content: Content) -> str:
    """The page. Whatever comes from file names or settings is escaped."""
    parts = [
        f"<h1>{escape(content.title)}</h1>",
        _summary(content),
        _training(content.curves),
        _epochs(content.epochs),
        "<h2>First-layer kernels</h2>",
        "<p>The kernels of tower 0, then of tower 1, as in the paper's Fig. 3.</p>" if len(content.colors["towers"]) > 1 else "",
        f"<img class='plate kernels' src='{_data(content.kernels, 'png')}' alt='kernels of the first layer'>",
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
        f"<title>{escape(content.title)}</title>\n<style>{STYLE}</style>\n<main>\n{body}\n</main>\n</html>\n"
    )


def _training(curves: bytes | None) -> str:
    if curves is None:
        return ""
    return f"<h2>Training</h2>\n<img class=plate src='{_data(curves, 'png')}' alt='loss and errors over the steps'>"


def _summary(content: Content) -> str:
    """The figures that one looks for first."""
    if content.curves is None:
        return ""
    result = content.result
    if result is None:
        last = content.epochs[-1] if content.epochs else None
        errors = {"top-1 error": last["top1_error"], "top-5 error": last["top5_error"]} if last else {}
        tiles = {name: f"{value:.1%}" for name, value in errors.items()} | {"epochs so far": str(len(content.epochs))}
    else:
        tiles = {
            "top-1 error": f"{result['top1_error']:.1%}",
            "top-5 error": f"{result['top5_error']:.1%}",
            f"loss on {result['images']:,} {result['split']} images": f"{result['loss']:.3f}",
            "epochs": str(result["epochs"]),
            "time": format_duration(result["seconds"]),
            "images a second": f"{result['images_per_second']:,.0f}",
        }
    made = "".join(f"<div><b>{escape(value)}</b>{escape(name)}</div>" for name, value in tiles.items())
    return f"<div class=tiles>{made}</div>"


def _epochs(epochs: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{line['epoch']}<td>{line['step']:,}<td>{line['rate']:g}<td>{line['loss']:.3f}"
        f"<td>{line['top1_error']:.1%}<td>{line['top5_error']:.1%}<td>{_percent(line.get('training_error'))}"
        for line in epochs
    )
    head = "<tr><th>epoch<th>step<th>rate<th>loss<th>top-1 error<th>top-5 error<th>training top-1 error"
    return (
        f"<details><summary>Errors after each epoch</summary><table class=numbers>{head}{rows}</table></details>" if rows else ""
    )


def _percent(share: float | None) -> str:
    return "—" if share is None else f"{share:.1%}"


def _colors(colors: dict[str, Any]) -> str:
    """A histogram for each tower."""
    most = max(max(of["histogram"]) for of in colors["towers"])
    towers = []
    for number, of in enumerate(colors["towers"]):
        bars = "".join(
            f"<rect x={place} y={most - count} width=.9 height={count} />" for place, count in enumerate(of["histogram"])
        )
        mean = f"<line x1={BINS * of['mean']:.2f} x2={BINS * of['mean']:.2f} y1=0 y2={most} />"
        towers.append(
            f"<figure><svg viewBox='0 0 {BINS} {most}' preserveAspectRatio=none role=img>{bars}{mean}</svg>"
            f"<figcaption>tower {number}: {of['kernels']} kernels, {of['mean']:.0%} color in the mean (line), "
            f"{of['median']:.0%} in the median</figcaption></figure>"
        )
    return f"<div class=histograms>{''.join(towers)}</div><p class=note>From left to right: {escape(colors['measure'])}.</p>"


def _examples(examples: Examples | str) -> str:
    if isinstance(examples, str):
        return f"<h2>Predictions and retrieval</h2>\n<p>{escape(examples)}</p>"
    guessed = "\n".join(map(_prediction, examples.predictions))
    found = "\n".join(map(_retrieved, examples.retrieved))
    searched, training = f"{examples.searched:,}", f"{examples.training:,}"
    among = f"all {training}" if searched == training else f"{searched} of {training}, drawn at random,"
    return (
        "<h2>Predictions</h2>\n"
        f"<p>{escape(examples.split.capitalize())} images drawn at random, their classes, and the five most probable by the "
        "network; the right one is <span class=right>marked</span>.</p>\n"
        f"<div class=predictions>{guessed}</div>\n"
        "<h2>Retrieval</h2>\n"
        f"<p>First an image, then the nearest of the training images ({among} were searched), by the Euclidean distance of what "
        "the last hidden layer makes of them.</p>\n"
        f"<div class=scroll><table class=retrieved>{found}</table></div>"
    )


def _prediction(prediction: Prediction) -> str:
    label = prediction.picture.label
    bars = "".join(
        f"<li{' class=right' if guess == label else ''} style='--p:{100 * probability:.1f}%' title='{probability:.1%}'>"
        f"{escape(guess)}</li>"
        for guess, probability in prediction.guesses
    )
    return f"<figure>{_image(prediction.picture)}<figcaption>{escape(label)}</figcaption><ol>{bars}</ol></figure>"


def _retrieved(retrieved: Retrieved) -> str:
    def cell(picture: Picture, note: str) -> str:
        same = " class=right" if picture.label == retrieved.picture.label else ""
        return f"<td title='{escape(picture.name)}'>{_image(picture)}<br><span{same}>{escape(picture.label)}</span>{note}"

    query = f"<th title='{escape(retrieved.picture.name)}'>{_image(retrieved.picture)}<br>{escape(retrieved.picture.label)}"
    near = "".join(cell(picture, f"<br><small>{distance:.4g}</small>") for picture, distance in retrieved.nearest)
    return f"<tr>{query}{near}"


def _image(picture: Picture) -> str:
    image, content = Image.fromarray(np.ascontiguousarray(picture.pixels)), BytesIO()
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(content, "JPEG", quality=90)
    return f"<img src='{_data(content.getvalue(), 'jpeg')}' alt='{escape(picture.name)}'>"


def _network(network: Mapping[str, Any]) -> str:
    """Its layers as a table; `summary` says more of the paper's."""
    rows = []
    for layer in network["layers"]:
        settings = ", ".join(f"{key} {_text(value)}" for key, value in layer.items() if key not in ("layer", "name"))
        rows.append(f"<tr><th>{escape(layer.get('name', ''))}<td>{escape(layer['layer'])}<td>{escape(settings)}")
    towers = f"{network['towers']} towers" if network["towers"] > 1 else "one tower"
    side = network["input_size"]
    head = f"<p>{escape(network['name'])}: {towers}, images of {side}×{side} pixels.</p>"
    return f"{head}\n<div class=scroll><table>{''.join(rows)}</table></div>"


def _table(values: Mapping[str, Any]) -> str:
    rows = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += [f"<tr><th>{escape(key)}: {escape(str(inner))}<td>{escape(_text(of))}" for inner, of in value.items()]
        else:
            rows.append(f"<tr><th>{escape(key)}<td>{escape(_text(value))}")
    return f"<div class=scroll><table>{''.join(rows)}</table></div>"


def _text(value: Any) -> str:
    """A setting as people write it; of long lists, the beginning."""
    if value is None or value == []:
        return "none"
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        shown = ", ".join(map(str, value[:50]))
        return f"{shown} … ({len(value):,})" if len(value) > 50 else shown
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #fdfdfc; --faint: #6b7075; --line: #dcdfe3; --bar: #c9d8ea;
  --right: #f0b9a8 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e3; --paper: #17191c; --faint: #9aa0a6; --line: #33373c;
  --bar: #2f4661; --right: #7c3f2f } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem }
h1 { font-size: 1.7rem; margin: 0 0 1rem; overflow-wrap: anywhere }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--line) }
img { max-width: 100%; vertical-align: top; border-radius: 3px }
.plate { background: #fff; padding: .5rem; box-sizing: border-box; border-radius: 6px }
.kernels { width: 44rem; image-rendering: pixelated }
.note, small, figcaption { color: var(--faint); font-size: .85rem }
.tiles { display: flex; flex-wrap: wrap; gap: 1rem 2.25rem }
.tiles div { color: var(--faint); font-size: .85rem }
.tiles b { display: block; color: var(--ink); font-size: 1.6rem; line-height: 1.2; font-weight: 600 }
figure { margin: 0; min-width: 0 }
.histograms { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 1.5rem; margin-top: 1rem;
  max-width: 44rem }
svg { width: 100%; height: 6rem; border-bottom: 1px solid var(--line); fill: var(--bar); stroke: none }
svg line { stroke: var(--ink); stroke-width: 1.5px; vector-effect: non-scaling-stroke }
.predictions { display: grid; grid-template-columns: repeat(auto-fill, minmax(12.5rem, 1fr)); gap: 1.75rem 1.5rem }
.predictions img { width: 100%; max-width: 10rem; display: block; margin: 0 auto }
.predictions figcaption { text-align: center; color: var(--ink); margin: .25rem 0 .4rem; overflow-wrap: anywhere }
.predictions ol { list-style: none; margin: 0; padding: 0; font-size: .85rem }
.predictions li { margin: 2px 0; padding: 1px .4rem; white-space: nowrap; overflow: hidden; text-overflow: ellipsis;
  background: linear-gradient(var(--bar), var(--bar)) no-repeat 0 0 / var(--p) 100% }
.predictions li.right { background-image: linear-gradient(var(--right), var(--right)) }
span.right { background: var(--right); padding: 0 .3em; border-radius: 3px }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .85rem }
th, td { text-align: left; vertical-align: top; font-weight: normal; padding: .2rem 1.25rem .2rem 0; overflow-wrap: anywhere }
tr + tr > * { border-top: 1px solid var(--line) }
th { color: var(--faint); white-space: nowrap }
.numbers td, .numbers th { text-align: right; font-variant-numeric: tabular-nums }
.retrieved td, .retrieved th { text-align: center; padding: .6rem .5rem .6rem 0; border: 0; white-space: normal;
  color: var(--ink) }
.retrieved th { padding-right: 1.5rem }
.retrieved img { width: 7.5rem; min-width: 5rem }
summary { cursor: pointer; color: var(--faint); margin: .75rem 0 }
"""
