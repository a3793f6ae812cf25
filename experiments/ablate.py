"""What each ingredient of the network is worth: train with it and without it, from the same seeds.

    python experiments/ablate.py --no-lrn
    python experiments/ablate.py --no-lrn --no-overlap --one-gpu --data path/to/photos --seeds 0 1 2

Several flags are several networks, each without one thing; `--together` makes one network without all of them. TrainedModel on the
quickstart's drawn pictures unless told otherwise, one flag takes six minutes on two cores: enough to see that everything works,
while the paper's differences, of one or two points, are of ImageNet and take `--base two_tower --data imagenet --epochs 90`.
Every training is an ordinary run: broken off, the same command goes on, and what is finished is not trained again.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any, Literal

import tyro
from published_results import ABLATIONS, Ablation, Errors
from rich.table import Table

from alexnet_jax.configs import load_config
from alexnet_jax.console import console
from alexnet_jax.data.find import find_dataset
from alexnet_jax.data.records import Dataset
from alexnet_jax.errors import DivergedError, UserError
from alexnet_jax.evaluation.paired_ci import PairedDifference, paired_difference
from alexnet_jax.evaluation.predictor import Predictor, Views
from alexnet_jax.files import atomic_text_writer
from alexnet_jax.model import ablations as variants
from alexnet_jax.parallel.mesh import Placement
from alexnet_jax.parallel.runtime import enable_compilation_cache
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.loop import Options, train
from alexnet_jax.training.preemption import exit_on_sigterm
from alexnet_jax.training.progress import format_duration
from alexnet_jax.weights.trained_model import load


@dataclass(frozen=True)
class Ablate:
    """Train with and without an ingredient, and compare.

    Attributes:
      no_lrn: no response normalization (section 3.3).
      no_overlap: pooling squares that do not overlap (section 3.4).
      no_dropout: no dropout (section 4.2).
      no_color: no shifts of color (section 4.1).
      no_crop: always the center of an image (section 4.1).
      no_flip: no mirroring (section 4.1).
      one_gpu: one tower of half as many kernels (section 3.2).
      no_cross_tower: towers that meet at the last layer only.
      contrast_norm: normalization of contrast instead of brightness.
      without_layer: layers to leave out, one at a time (section 7).
      nonlinearity: instead of ReLU (section 3.1).
      together: leave out all that is named at once.
      base: experiment to begin with.
      data: as for `train`; None is the base's own.
      epochs: of each training. All that the base's schedule changes, it changes at the same share of them.
      seeds: of the pairs of trainings.
      views: that the errors are of; the paper's are of ten.
      data_dir: folder of prepared data sets.
      runs_dir: folder of run folders.
      placement: as for `train`.
      devices: as for `train`.
      to: file for the result, written anew after every training; None is RUNS_DIR/ablate.json. Ablations of the same settings
        that it holds already stay.
    """

    no_lrn: bool = False
    no_overlap: bool = False
    no_dropout: bool = False
    no_color: bool = False
    no_crop: bool = False
    no_flip: bool = False
    one_gpu: bool = False
    no_cross_tower: bool = False
    contrast_norm: bool = False
    without_layer: tuple[str, ...] = ()
    nonlinearity: tuple[Literal["tanh", "abs_tanh", "sigmoid"], ...] = ()
    together: bool = False
    base: str = "quickstart"
    data: str | None = None
    epochs: int = 20
    seeds: tuple[int, ...] = (0, 1)
    views: Views = "ten"
    data_dir: Path = Path("data")
    runs_dir: Path = Path("runs")
    placement: Placement = "auto"
    devices: int | None = None
    to: Path | None = None


Change = Callable[[TrainConfig], TrainConfig]

TrainMetrics = dict[str, dict[str, list[float | None]]]
"""By name, then "top1" and "top5": a fraction for each seed, None where the training has diverged."""


def of_network(variant: variants.Ablation) -> Change:
    def change(experiment: TrainConfig) -> TrainConfig:
        network = variant(experiment.network)
        there = network.named_layers
        rates = tuple(rate for rate in experiment.layer_rates if rate.layer in there)
        decays = tuple((layer, decay) for layer, decay in experiment.layer_decays if layer in there)
        return replace(experiment, network=network, layer_rates=rates, layer_decays=decays)

    return change


def of_images(**settings: Any) -> Change:
    return lambda experiment: replace(experiment, augmentation=replace(experiment.augmentation, **settings))


CHANGES: dict[str, Change] = {
    "no_lrn": of_network(variants.without_normalization),
    "no_overlap": of_network(variants.without_overlap),
    "no_dropout": of_network(variants.without_dropout),
    "no_color": of_images(color=None, color_divisor=1.0),
    "no_crop": of_images(crop=False),
    "no_flip": of_images(flip=False),
    "one_gpu": of_network(variants.one_tower),
    "no_cross_tower": of_network(variants.without_communication),
    "contrast_norm": of_network(variants.with_contrast_norm),
}


def asked(settings: Ablate) -> dict[str, Change]:
    """What the flags name, by name.

    Raises:
      UserError: if they name nothing.
    """
    found = {name: change for name, change in CHANGES.items() if getattr(settings, name)}
    for name in settings.without_layer:
        found[f"without_{name}"] = of_network(variants.without_layer(name))
    for name in settings.nonlinearity:
        found[name] = of_network(variants.with_nonlinearity(name))
    if not found:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in CHANGES)
        raise UserError(f"say what to do without: {flags}, --without-layer NAME, --nonlinearity NAME")
    if settings.together and len(found) > 1:

        def all_of_them(experiment: TrainConfig) -> TrainConfig:
            for change in found.values():
                experiment = change(experiment)
            return experiment

        return {"+".join(found): all_of_them}
    return found


def experiments(settings: Ablate) -> dict[str, TrainConfig]:
    """The base and what is made of it, by name.

    Raises:
      UserError: for an ablation that the base's network does not allow, or without epochs or seeds.
    """
    if settings.epochs < 1 or not settings.seeds or len(set(settings.seeds)) < len(settings.seeds):
        raise UserError("--epochs takes one or more, --seeds one or more that differ")
    base = load_config(settings.base).in_epochs(settings.epochs)
    made = {"base": base}
    for name, change in asked(settings).items():
        made[name] = change(base)
        if made[name] == base:
            raise UserError(f"--{name.replace('_', '-')} changes nothing of {settings.base}")
    return made


def ablate(settings: Ablate) -> dict[str, Any]:
    """Trains what is not trained yet, and returns the comparison as far as it goes."""
    made = experiments(settings)
    dataset = find_dataset(settings.data, made["base"].default_data, settings.data_dir)
    to = settings.to or settings.runs_dir / "ablate.json"
    errors: TrainMetrics = {name: {"top1": [], "top5": []} for name in made}
    result, held = {}, earlier(to, about(settings, dataset))
    count, begun, left = len(settings.seeds) * len(made), perf_counter(), ""
    for seed in settings.seeds:
        for name, experiment in made.items():
            done = sum(len(found["top1"]) for found in errors.values())
            if done:
                left = f", about {format_duration((perf_counter() - begun) / done * (count - done))} left"
            console.print(f"training {done + 1} of {count}: {name}, seed {seed}{left}", style="bold", markup=False)
            top1, top5 = train_and_test(name, replace(experiment, seed=seed), settings, dataset)
            errors[name]["top1"].append(top1)
            errors[name]["top5"].append(top5)
            result = compared(settings, dataset, errors)
            result["ablations"] = held | result["ablations"]
            with atomic_text_writer(to) as file:
                file.write(json.dumps(result, indent=1) + "\n")
    return result


def train_and_test(
    name: str, experiment: TrainConfig, settings: Ablate, dataset: Dataset
) -> tuple[float, float] | tuple[None, None]:
    """Top-1 and top-5 error on the validation images; None if the loss has become no number."""
    options = Options(
        data=str(dataset.path),
        data_dir=settings.data_dir,
        # A longer training has the folder of a shorter one, which it prolongs; here, both are wanted.
        runs_dir=settings.runs_dir / "ablate" / f"{settings.epochs}-epochs",
        placement=settings.placement,
        devices=settings.devices,
    )
    try:
        folder = train(f"{Path(settings.base).stem}-{name}", experiment, options)
    except DivergedError as error:
        console.print(f"{name} has diverged: {error}", style="yellow", markup=False)
        return None, None
    if not (folder / "result.json").is_file():
        sys.exit(0)  # asked to stop
    labels, rows = Predictor(load(folder), views=settings.views).split(dataset, dataset.evaluation_split)
    place = (rows > rows[range(len(rows)), labels][:, None]).sum(axis=1)  # how many classes are more probable
    return float((place > 0).mean()), float((place > 4).mean())


def compared(settings: Ablate, dataset: Dataset, errors: TrainMetrics) -> dict[str, Any]:
    """What is known so far, as JSON; differences are ablated minus base, so above zero if the ingredient helps.

    There is none where one of the trainings has diverged.
    """
    found: dict[str, Any] = {}
    for name in asked(settings):
        if not errors[name]["top1"]:
            continue
        found[name] = {}
        for which in ("top1", "top5"):
            of_it = {"base": errors["base"][which], "ablated": errors[name][which]}
            found[name][which] = {**of_it, "delta": None, "low": None, "high": None}
            those, these = ([error for error in of_it[kind] if error is not None] for kind in ("ablated", "base"))
            if those == of_it["ablated"] and these == of_it["base"]:
                delta = paired_difference(those, these)
                found[name][which] |= {"delta": delta.mean, "low": delta.low, "high": delta.high}
    seeds = list(settings.seeds[: len(errors["base"]["top1"])])
    return {**about(settings, dataset), "seeds": seeds, "base_errors": errors["base"], "ablations": found}


def about(settings: Ablate, dataset: Dataset) -> dict[str, Any]:
    """What errors have to share to stand in one file."""
    split = dataset.evaluation_split
    return {
        "base": Path(settings.base).stem,
        "data": dataset.path.name,
        "split": split,
        "images": dataset.manifest.splits[split],
        "epochs": settings.epochs,
        "views": settings.views,
        "seeds": list(settings.seeds),
    }


def earlier(file: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """The ablations that the file holds, if it is about what is wanted.

    Raises:
      UserError: if it is something else.
    """
    if not file.is_file():
        return {}
    try:
        held = json.loads(file.read_text())
        return held["ablations"] if all(held[key] == value for key, value in wanted.items()) else {}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no result of this program: give another --to") from error


def table(result: dict[str, Any]) -> Table:
    """Errors without each ingredient, less those with it."""
    base = [f"{mean(values):.1%}" if None not in values else "—" for values in result["base_errors"].values()]
    title = (
        f"{result['base']} on {result['images']} {result['split']} images of {result['data']}: top-1 {base[0]}, top-5 {base[1]}"
    )
    rows = Table("points of error", "top-1", "top-5", "paper", "original logs", title=title, title_justify="left")
    for name, found in result["ablations"].items():
        ours = [measured(found[which]) for which in ("top1", "top5")]
        known = ABLATIONS.get(name, Ablation(name, ""))
        rows.add_row(name.replace("_", "-"), *ours, known.says or both(known.paper), both(known.logged))
    return rows


def measured(values: dict[str, Any]) -> str:
    return "diverged" if values["delta"] is None else str(PairedDifference(values["delta"], values["low"], values["high"]))


def both(errors: Errors) -> str:
    """Top-1 and top-5, in percentage points."""
    return " / ".join("—" if error is None else f"{100 * error:+.2f}" for error in errors)


def main() -> None:
    exit_on_sigterm()
    settings = tyro.cli(Ablate, config=(tyro.conf.FlagCreatePairsOff,))
    enable_compilation_cache()
    result = ablate(settings)
    console.print(table(result))
    seeds = len(result["seeds"])
    spread = "nobody can say how far chance goes" if seeds < 2 else "in brackets: 95 % of what chance makes of it"
    console.print(f"{result['epochs']} epochs, {seeds} seed(s), {result['views']} view(s): {spread}", markup=False)
    print(json.dumps(result))


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
