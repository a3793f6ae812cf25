"""Tables 1 and 2 of the paper, its ablations and its figures for CIFAR-10: published, logged by the original code, ours.

    make tables

Ours are read from results/, and a dash stands where nobody has trained that yet. To fill a line of Table 1 or 2:

    python -m alexnet_jax evaluate RUN --split test --to OUT && cp OUT/errors.json experiments/results/ilsvrc2010.json

`published.py` has the names; five or seven runs in one command are ilsvrc2012_five and ilsvrc2012_seven, and two on photos of
clothes clothing10_evaluation. Whatever is called ablations*.json, from `ablate.py --to`, has columns of its own. README.md has
the same tables (`make readme`).
"""

import json
import statistics
from pathlib import Path
from typing import Any

from published_results import (
    ABLATIONS,
    CIFAR_WITH_NORMALIZATION,
    CIFAR_WITHOUT_NORMALIZATION,
    FALL_2009,
    FIGURE_1_RATIO,
    TABLE_1,
    TABLE_2,
    Ablation,
    Errors,
    Row,
)

RESULTS = Path(__file__).parent / "results"
DASH = "—"
BOTH = ("top1", "top5")


def result(name: str) -> Any:
    """A file of results/."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def result_or_none(name: str | None) -> Any:
    """The same, or None if it is not there."""
    return result(name) if name and (RESULTS / f"{name}.json").is_file() else None


def table(header: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(error: float | None, digits: int = 1) -> str:
    return DASH if error is None else f"{100 * error:.{digits}f}%"


def points(difference: float | None, digits: int = 1) -> str:
    """A difference of errors, in points of per cent."""
    return DASH if difference is None else f"{100 * difference:+.{digits}f}"


def evaluated(name: str | None, views: str, of: str | None = None) -> Errors:
    """Errors from an errors.json of `evaluate`: of the network in it, of the mean of several, or of whatever `of` says."""
    for line in reversed((result_or_none(name) or {"errors": []})["errors"]):
        if line["views"] == views and of in (None, line["of"]) and not line["of"].startswith("weighted"):
            return Errors(line["top1_error"], line["top5_error"])
    return Errors(None, None)


def _row(row: Row, *test: float | None) -> list[str]:
    ours = evaluated(row.ours, row.views)
    paper = [percent(error) for error in (*row.paper, *test)]
    return [row.model, *paper, *(percent(error, 2) for error in (*row.logged, *ours))]


def table_1() -> str:
    header = ["ILSVRC-2010, test", "paper: top-1", "top-5", "original log: top-1", "top-5", "ours: top-1", "top-5"]
    return table(header, [_row(row) for row in TABLE_1])


def table_2() -> str:
    header = ["ILSVRC-2012, validation", "paper: top-1", "top-5", "test top-5"]
    return table([*header, "original log: top-1", "top-5", "ours: top-1", "top-5"], [_row(row, row.test_top5) for row in TABLE_2])


def fall_2009() -> str:
    header = ["ImageNet, Fall 2009", "paper: top-1", "top-5", "original log: top-1", "top-5", "ours: top-1", "top-5"]
    return table(header, [_row(row) for row in FALL_2009])


def ablations() -> str:
    """What each part is worth, with a column for each file of results/ that `ablate.py` has written there."""
    ours = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("ablations*.json"))]
    header = ["without", "section", "paper: top-1", "top-5", "original logs: top-1", "top-5"]
    for study in ours:
        title = f"ours: `{study['base']}` on {study['data']}, {study['epochs']} epochs, {_seeds(study)}"
        header += [f"{title}, top-1", "top-5"]
    if not ours:
        header += ["ours: top-1", "top-5"]
    more = {name for study in ours for name in study["ablations"]} - set(ABLATIONS)
    known = ABLATIONS | {name: Ablation(f"`{name}`", "") for name in sorted(more)}
    rows = []
    for name, ablation in known.items():
        row = [ablation.what, ablation.section, ablation.says or points(ablation.paper.top1), points(ablation.paper.top5)]
        row += [points(difference, 2) for difference in ablation.logged]
        for study in ours:
            measured = study["ablations"].get(name)
            row += [_diverged(measured and measured[which]) or _interval(measured and measured[which], "delta") for which in BOTH]
        rows.append(row if ours else [*row, DASH, DASH])
    return table(header, rows)


def _seeds(measured: dict[str, Any]) -> str:
    seeds = len(measured["seeds"])
    return f"{seeds} seed{'s' if seeds > 1 else ''}"


def _diverged(measured: dict[str, Any] | None) -> str:
    """How many of the trainings without it have ended in no number, if any."""
    errors = (measured or {}).get("ablated", [])
    return f"{errors.count(None)} of {len(errors)} diverged" if None in errors else ""


def _interval(difference: dict[str, Any] | None, mean: str) -> str:
    """A difference and, if it has them, the ends of its confidence interval."""
    if difference is None:
        return DASH
    ends = [points(difference[end], 2) for end in ("low", "high")]
    return points(difference[mean], 2) + ("" if difference["low"] is None else f" ({' to '.join(ends)})")


def cifar() -> str:
    figure, norm = result_or_none("cifar_figure1"), result_or_none("cifar_lrn")
    epochs = {name: (figure or {}).get(name, {}).get("epochs_to_25_percent") for name in ("tanh", "relu")}
    ratio = (figure or {}).get("tanh_by_relu")
    rows = [["Figure 1: epochs to 25% training error, tanh by ReLU", f"{FIGURE_1_RATIO:.0f}", DASH]]
    if ratio:
        rows[0][-1] = f"{ratio:.1f} ({epochs['tanh']:.1f} by {epochs['relu']:.1f}, one seed)"
    for name, paper in (("without", CIFAR_WITHOUT_NORMALIZATION), ("with", CIFAR_WITH_NORMALIZATION)):
        errors = norm["test_error"][name][: len(norm["seeds"])] if norm else []  # of whole pairs
        ours = f"{statistics.mean(errors):.2%}" if errors else DASH
        rows.append([f"test error of the four-layer network {name} normalization", f"{paper:.0%}", ours])
    difference = CIFAR_WITHOUT_NORMALIZATION - CIFAR_WITH_NORMALIZATION
    rows.append(["difference", points(difference, 0), _interval(norm and norm["difference"], "mean")])
    trained = f"ours, {norm['epochs']} epochs, {_seeds(norm)}" if norm and norm["seeds"] else "ours"
    return table(["CIFAR-10", "paper", trained], rows)


def clothing() -> str:
    """Networks of the paper's size on photos of clothes, alone and together."""
    measured = result_or_none("clothing10_evaluation")
    networks = measured["networks"] if measured else [{"path": name, "network": name} for name in ("two_tower", "source_145")]
    names = {of["path"]: f"`{of['network']}`" for of in networks}
    rows = []
    for of, name in {**names, "mean": "mean of their predictions"}.items():
        errors = [*evaluated("clothing10_evaluation", "center", of), *evaluated("clothing10_evaluation", "ten", of)]
        rows.append([name, *(percent(error) for error in errors)])
    header = ["photos of clothes in 10 classes, test", "center view: top-1", "top-5", "ten views: top-1", "top-5"]
    return table(header, rows)


TABLES = {
    "table 1": table_1,
    "table 2": table_2,
    "fall 2009": fall_2009,
    "ablations": ablations,
    "cifar": cifar,
    "clothing evaluation": clothing,
}

if __name__ == "__main__":
    print("\n\n".join(make() for make in TABLES.values()))
