"""Tables 1 and 2, ablations, and CIFAR-10 results of the paper: published errors, errors logged by the original code, and ours.

    make tables

Our errors are read from results/; a dash marks a network that has not been trained. To fill in a row of Table 1 or 2:

    alexnet-jax evaluate RUN --split test --to OUT && cp OUT/errors.json experiments/results/ilsvrc2010.json

The file names are in `published_results.py`. Evaluate five or seven runs in one command for ilsvrc2012_five and
ilsvrc2012_seven. Each file ablations*.json, written by `ablate.py --to`, adds two columns to the ablations. `make readme` writes
the same tables to README.md and docs/results.md.
"""

import json
import statistics
from pathlib import Path
from typing import Any

import tyro
from published_results import (
    ABLATIONS,
    CIFAR_WITH_NORMALIZATION,
    CIFAR_WITHOUT_NORMALIZATION,
    FALL_2009,
    FIGURE_1_RATIO,
    METHODS,
    TABLE_1,
    TABLE_2,
    UNKNOWN,
    Ablation,
    Errors,
    Row,
)

from alexnet_jax.cli.exit import exit_on_error

RESULTS = Path(__file__).parent / "results"
DASH = "—"
METRICS = ("top1", "top5")
MEASURES = {
    "mean_class_accuracy": "mean accuracy of the classes",
    "top1_error": "top-1 error",
    "top5_error": "top-5 error",
}
BASELINE_DATA = {
    "caltech101-30-whole": ("ours, whole images", "mean_class_accuracy"),
    "caltech101-30": ("ours, squares of 256 pixels", *MEASURES),
    "caltech101-11-classes-30": ("11 of the classes, squares", *MEASURES),
    "clothing": ("photos of clothes, 3,068 to train on", "top1_error", "top5_error"),
}
"""Data sets in results/baselines/, with the measures in their rows of the table."""
THIRD = " at a third of the rate"
"""Note on an ablation that diverged at the learning rate of the study, and was trained again."""


def result(name: str) -> Any:
    """Read results/NAME.json."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def result_or_none(name: str | None) -> Any:
    """Read results/NAME.json; return None if it does not exist or `name` is None."""
    return result(name) if name and (RESULTS / f"{name}.json").is_file() else None


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(error: float | None, digits: int = 1) -> str:
    """Format a fraction as a percentage; a dash for None."""
    return DASH if error is None else f"{100 * error:.{digits}f}%"


def points(difference: float | None, digits: int = 1) -> str:
    """Format a difference of errors in percentage points; a dash for None."""
    return DASH if difference is None else f"{100 * difference:+.{digits}f}"


def mean_and_deviation(values: list[float]) -> str:
    """Format the mean of fractions as a percentage, with their standard deviation if there are several."""
    return percent(statistics.mean(values)) + (f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else "")


def evaluated_errors(name: str | None, views: str) -> Errors:
    """Return errors from an errors.json of `evaluate` in results/: the last ones without fitted weights.

    Args:
      name: name of the file without its suffix; None if there is none.
      views: views that predictions are averaged over.

    Returns:
      Top-1 and top-5 errors; None for both if there is no such file or entry.
    """
    for line in reversed((result_or_none(name) or {"errors": []})["errors"]):
        if line["views"] == views and not line["name"].startswith("weighted"):
            return Errors(line["top1_error"], line["top5_error"])
    return Errors(None, None)


def _row(row: Row, *test: float | None) -> list[str]:
    ours = evaluated_errors(row.ours, row.views)
    paper = [percent(error) for error in (*row.paper, *test)]
    return [row.model, *paper, *(percent(error, 2) for error in (*row.logged, *ours))]


def table_1() -> str:
    """Return Table 1 of the paper."""
    header = ["ILSVRC-2010, test", "paper: top-1", "top-5", "original log: top-1", "top-5", "ours: top-1", "top-5"]
    return table(header, [_row(row) for row in TABLE_1])


def table_2() -> str:
    """Return Table 2 of the paper."""
    header = ["ILSVRC-2012, validation", "paper: top-1", "top-5", "test top-5"]
    return table([*header, "original log: top-1", "top-5", "ours: top-1", "top-5"], [_row(row, row.test_top5) for row in TABLE_2])


def fall_2009() -> str:
    """Return the errors on ImageNet, Fall 2009 (section 6 of the paper)."""
    header = ["ImageNet, Fall 2009", "paper: top-1", "top-5", "original log: top-1", "top-5", "ours: top-1", "top-5"]
    return table(header, [_row(row) for row in FALL_2009])


def ablations() -> str:
    """Return the ablations, with two columns for each ablations*.json in results/."""
    ours = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("ablations*.json"))]
    header = ["removed", "section", "paper: top-1", "top-5", "original logs: top-1", "top-5"]
    for study in ours:
        title = f"ours: `{study['base']}` on {study['data']}, {study['epochs']} epochs, {_seeds(study)}"
        header += [f"{title}, top-1", "top-5"]
    if not ours:
        header += ["ours: top-1", "top-5"]
    unpublished = {name for study in ours for name in study["ablations"]} - set(ABLATIONS)
    known = ABLATIONS | {name: Ablation(f"`{name}`", "") for name in sorted(unpublished)}
    rows = []
    for name, ablation in known.items():
        row = [ablation.component, ablation.section, ablation.paper_text or points(ablation.paper.top1)]
        row += [points(ablation.paper.top5), *(points(difference, 2) for difference in ablation.logged)]
        for study in ours:
            metrics = study["ablations"].get(name)
            note = THIRD if metrics and "retried" in metrics else ""
            cells = [_diverged(metrics and metrics[m]) or _interval(metrics and metrics[m], "delta") for m in METRICS]
            row += [cell + note for cell in cells]
        rows.append(row if ours else [*row, DASH, DASH])
    return table(header, rows)


def _seeds(study: dict[str, Any]) -> str:
    seeds = len(study["seeds"])
    return f"{seeds} seed{'s' if seeds > 1 else ''}"


def _diverged(metric: dict[str, Any] | None) -> str:
    """Return a note on how many ablated runs diverged; empty if none did."""
    errors = (metric or {}).get("ablated", [])
    return f"{errors.count(None)} of {len(errors)} diverged" if None in errors else ""


def _interval(difference: dict[str, Any] | None, mean: str) -> str:
    """Format a difference, stored under the key `mean`, with its confidence interval if it has one."""
    if difference is None:
        return DASH
    bounds = [points(difference[bound], 2) for bound in ("low", "high")]
    return points(difference[mean], 2) + ("" if difference["low"] is None else f" ({' to '.join(bounds)})")


def cifar() -> str:
    """Return the results on CIFAR-10: Figure 1 and response normalization."""
    figure, norm = result_or_none("cifar_figure1"), result_or_none("cifar_lrn")
    epochs = {name: (figure or {}).get(name, {}).get("epochs_to_25_percent") for name in ("tanh", "relu")}
    ratio = (figure or {}).get("tanh_by_relu")
    rows = [["Figure 1: epochs to 25% training error, ratio of tanh to ReLU", f"{FIGURE_1_RATIO:.0f}", DASH]]
    if ratio:
        rows[0][-1] = f"{ratio:.1f} ({epochs['tanh']:.1f} and {epochs['relu']:.1f} epochs, one seed)"
    for name, paper in (("without", CIFAR_WITHOUT_NORMALIZATION), ("with", CIFAR_WITH_NORMALIZATION)):
        errors = norm["test_error"][name][: len(norm["seeds"])] if norm else []  # only seeds for which both are trained
        ours = f"{statistics.mean(errors):.2%}" if errors else DASH
        rows.append([f"test error of the four-layer network {name} response normalization", f"{paper:.0%}", ours])
    difference = CIFAR_WITHOUT_NORMALIZATION - CIFAR_WITH_NORMALIZATION
    rows.append(["difference, points", points(difference, 0), _interval(norm and norm["difference"], "mean")])
    ours_header = f"ours, {norm['epochs']} epochs, {_seeds(norm)}" if norm and norm["seeds"] else "ours"
    return table(["CIFAR-10", "paper", ours_header], rows)


def photo_errors(name: str, views: str) -> Errors:
    """Return the test errors of a network on photos of clothes (`photos.py`)."""
    run = (result_or_none("photos") or {"runs": {}})["runs"].get(name)
    return Errors(run["test"][views]["top1_error"], run["test"][views]["top5_error"]) if run else UNKNOWN


def clothing() -> str:
    """Return the errors of networks on photos of clothes."""
    photos = result_or_none("photos") or {"runs": {"two_tower": {"epochs": DASH}}}
    rows = []
    for name, run in photos["runs"].items():
        errors = (*photo_errors(name, "center"), *photo_errors(name, "ten")) if "test" in run else (None,) * 4
        rows.append([f"`{name}`", str(run["epochs"]), *map(percent, errors)])
    return table(["photos of clothes, test", "epochs", "center view: top-1", "top-5", "ten views: top-1", "top-5"], rows)


def baselines() -> str:
    """Return the results of the baselines of Tables 1 and 2, and of networks that are trained on the same images."""
    published = [f"{percent(method.accuracy)} ({method.reference})" if method.accuracy else DASH for method in METHODS.values()]
    rows = [["published for Caltech-101, 30 images per class to train on: mean accuracy of the classes", *published]]
    for name, (description, *measures) in BASELINE_DATA.items():
        for field in measures:
            cells = [_over_splits(name, method, field) for method in METHODS]
            rows.append([f"{description}: {MEASURES[field]}", *cells])
    return table(["", *(method.description for method in METHODS.values())], rows)


def _over_splits(data: str, method: str, field: str) -> str:
    """Format the mean over splits of a field of a result in results/baselines/, with its standard deviation."""
    measured = result_or_none(f"baselines/{data}-{method}")
    if measured is None:
        errors = photo_errors(method, "ten") if data == "clothing" else UNKNOWN
        return percent(errors.top5 if field == "top5_error" else errors.top1)
    return mean_and_deviation(measured[field])


TABLES = {
    "table 1": table_1,
    "table 2": table_2,
    "fall 2009": fall_2009,
    "ablations": ablations,
    "cifar": cifar,
    "clothing evaluation": clothing,
    "baselines": baselines,
}


def main() -> None:
    """Print all tables."""
    print("\n\n".join(make() for make in TABLES.values()))


if __name__ == "__main__":
    with exit_on_error():
        tyro.cli(main, description=__doc__)
