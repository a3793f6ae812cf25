"""Ablation study: train a network with and without each of its components, from the same seeds, and compare the errors.

    python experiments/ablate.py --no-lrn
    python experiments/ablate.py --no-lrn --no-overlap --one-gpu --data path/to/photos --seeds 0 1 2

Each flag is a separate ablation; `--together` removes all the named components from one network. The default is the quickstart
config on synthetic images: one flag takes six minutes on two cores, which is enough to check that everything works. The paper's
differences of one or two points are for ImageNet and need `--base two_tower --data imagenet --epochs 90`.

Each config is trained in an ordinary run for each seed. To resume after an interruption, run the same command; finished runs are
not repeated.
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

from alexnet_jax.cli.process import configure_training
from alexnet_jax.configs import load_config
from alexnet_jax.console import console
from alexnet_jax.data.find import find_dataset
from alexnet_jax.data.records import Dataset
from alexnet_jax.errors import DivergedError, UserError
from alexnet_jax.evaluation.paired_ci import PairedDifference, paired_difference
from alexnet_jax.evaluation.predictor import Predictor, Views
from alexnet_jax.files import atomic_text_writer
from alexnet_jax.model import ablations
from alexnet_jax.parallel.mesh import Placement
from alexnet_jax.training.config import Options, TrainConfig
from alexnet_jax.training.preemption import StopOnSignal, exit_on_sigterm
from alexnet_jax.training.progress import format_duration
from alexnet_jax.training.train import train
from alexnet_jax.weights.trained_model import load


@dataclass(frozen=True)
class Ablate:
    """Train with and without a component, and compare the errors.

    Attributes:
      no_lrn: remove response normalization (section 3.3).
      no_overlap: use pooling windows that do not overlap (section 3.4).
      no_dropout: remove dropout (section 4.2).
      no_color: disable color augmentation (section 4.1).
      no_crop: use center crops instead of random crops (section 4.1).
      no_flip: disable horizontal flips (section 4.1).
      one_gpu: use one tower with half the kernels (section 3.2).
      no_cross_tower: remove communication between towers before the last layer.
      contrast_norm: use contrast normalization, which subtracts the mean, instead of response normalization (section 3.3).
      without_layer: layers to remove, one at a time (section 7).
      nonlinearity: nonlinearities to use instead of ReLU, one at a time (section 3.1).
      together: apply all named changes to one network.
      base: name or file of the config to change.
      data: data set, as for `train`; None uses the default data of the config.
      epochs: epochs per run; the milestones of the schedule are scaled accordingly.
      seeds: random seeds; the base and every ablation are trained once per seed.
      views: views to average predictions over; the paper uses ten.
      data_dir: folder of prepared data sets.
      runs_dir: folder of run folders.
      placement: placement of towers on devices, as for `train`.
      devices: number of devices, as for `train`.
      to: JSON file for the result, rewritten after every run; None uses RUNS_DIR/ablate.json. Ablations with the same
        settings that are already in the file are kept.
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


ConfigChange = Callable[[TrainConfig], TrainConfig]
"""Function from a config to an ablated config."""

ErrorLists = dict[str, dict[str, list[float | None]]]
"""Errors by name of the network, then by "top1" and "top5": a fraction per seed, or None where the run diverged."""


def change_network(ablation: ablations.Ablation) -> ConfigChange:
    """Return a config change that applies an ablation to the network and drops the settings of removed layers."""

    def change(config: TrainConfig) -> TrainConfig:
        network = ablation(config.network)
        layers = network.named_layers
        rates = tuple(rate for rate in config.layer_rates if rate.layer in layers)
        decays = tuple((layer, decay) for layer, decay in config.layer_decays if layer in layers)
        return replace(config, network=network, layer_rates=rates, layer_decays=decays)

    return change


def without_transform(name: str) -> ConfigChange:
    """Return a config change that removes a transform of the augmentation."""
    return lambda config: replace(config, augmentation=config.augmentation.without(name))


CHANGES: dict[str, ConfigChange] = {
    "no_lrn": change_network(ablations.without_normalization),
    "no_overlap": change_network(ablations.without_overlap),
    "no_dropout": change_network(ablations.without_dropout),
    "no_color": without_transform("PCAColor"),
    "no_crop": without_transform("RandomCrop"),
    "no_flip": without_transform("RandomFlip"),
    "one_gpu": change_network(ablations.one_tower),
    "no_cross_tower": change_network(ablations.without_communication),
    "contrast_norm": change_network(ablations.with_contrast_norm),
}
"""Change of the config for each boolean flag."""


def requested_changes(settings: Ablate) -> dict[str, ConfigChange]:
    """Return the changes that the flags request, by name.

    Raises:
      UserError: if no flag requests a change.
    """
    changes = {name: change for name, change in CHANGES.items() if getattr(settings, name)}
    for name in settings.without_layer:
        changes[f"without_{name}"] = change_network(ablations.without_layer(name))
    for name in settings.nonlinearity:
        changes[name] = change_network(ablations.with_nonlinearity(name))
    if not changes:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in CHANGES)
        raise UserError(f"no ablation requested: pass at least one of {flags}, --without-layer NAME, --nonlinearity NAME")
    if settings.together and len(changes) > 1:

        def apply_all(config: TrainConfig) -> TrainConfig:
            for change in changes.values():
                config = change(config)
            return config

        return {"+".join(changes): apply_all}
    return changes


def ablation_configs(settings: Ablate) -> dict[str, TrainConfig]:
    """Return the base config, under the name "base", and the ablated configs, by name.

    Raises:
      UserError: if an ablation does not apply to the base network, or `settings.epochs` or `settings.seeds` is invalid.
    """
    if settings.epochs < 1 or not settings.seeds or len(set(settings.seeds)) < len(settings.seeds):
        raise UserError("--epochs must be at least 1, and --seeds must be one or more distinct numbers")
    base = load_config(settings.base).with_epochs(settings.epochs)
    configs = {"base": base}
    for name, change in requested_changes(settings).items():
        configs[name] = change(base)
        if configs[name] == base:
            raise UserError(f"--{name.replace('_', '-')} changes nothing in {settings.base}: remove the flag")
    return configs


def ablate(settings: Ablate) -> dict[str, Any]:
    """Train all configs that are not trained yet, and return the comparison, which is also written to `settings.to`."""
    configs = ablation_configs(settings)
    dataset = find_dataset(settings.data, configs["base"].default_data, settings.data_dir)
    to = settings.to or settings.runs_dir / "ablate.json"
    errors: ErrorLists = {name: {"top1": [], "top5": []} for name in configs}
    result, stored = {}, stored_ablations(to, study_metadata(settings, dataset))
    count, start, time_left = len(settings.seeds) * len(configs), perf_counter(), ""
    for seed in settings.seeds:
        for name, config in configs.items():
            done = sum(len(metrics["top1"]) for metrics in errors.values())
            if done:
                time_left = f", about {format_duration((perf_counter() - start) / done * (count - done))} left"
            console.print(f"training {done + 1} of {count}: {name}, seed {seed}{time_left}", style="bold", markup=False)
            top1, top5 = train_and_test(name, replace(config, seed=seed), settings, dataset)
            errors[name]["top1"].append(top1)
            errors[name]["top5"].append(top5)
            result = compare(settings, dataset, errors)
            result["ablations"] = stored | result["ablations"]
            with atomic_text_writer(to) as file:
                file.write(json.dumps(result, indent=1) + "\n")
    return result


def train_and_test(name: str, config: TrainConfig, settings: Ablate, dataset: Dataset) -> tuple[float, float] | tuple[None, None]:
    """Train a config and return its top-1 and top-5 errors on the validation images; (None, None) if training diverged."""
    options = Options(
        data=str(dataset.path),
        data_dir=settings.data_dir,
        # Without a folder per number of epochs, a longer run would resume a shorter one and overwrite its result.
        runs_dir=settings.runs_dir / "ablate" / f"{settings.epochs}-epochs",
        placement=settings.placement,
        devices=settings.devices,
    )
    try:
        with StopOnSignal() as should_stop:
            result = train(f"{Path(settings.base).stem}-{name}", config, options, should_stop=should_stop)
    except DivergedError as error:
        console.print(f"{name} diverged: {error}", style="yellow", markup=False)
        return None, None
    if not result.finished:
        sys.exit(0)  # stopped by a signal
    labels, probabilities = Predictor(load(result.run), views=settings.views).predict_split(dataset, dataset.evaluation_split)
    rank = (probabilities > probabilities[range(len(probabilities)), labels][:, None]).sum(axis=1)
    return float((rank > 0).mean()), float((rank > 4).mean())


def compare(settings: Ablate, dataset: Dataset, errors: ErrorLists) -> dict[str, Any]:
    """Return the result as JSON: settings, errors, and their differences, ablated minus base.

    A difference is positive if the component helps, and None if any of the runs diverged.
    """
    comparison: dict[str, Any] = {}
    for name in requested_changes(settings):
        if not errors[name]["top1"]:
            continue
        comparison[name] = {}
        for metric in ("top1", "top5"):
            pair = {"base": errors["base"][metric], "ablated": errors[name][metric]}
            comparison[name][metric] = {**pair, "delta": None, "low": None, "high": None}
            ablated, base = ([error for error in pair[kind] if error is not None] for kind in ("ablated", "base"))
            if ablated == pair["ablated"] and base == pair["base"]:
                delta = paired_difference(ablated, base)
                comparison[name][metric] |= {"delta": delta.mean, "low": delta.low, "high": delta.high}
    seeds = list(settings.seeds[: len(errors["base"]["top1"])])
    return {**study_metadata(settings, dataset), "seeds": seeds, "base_errors": errors["base"], "ablations": comparison}


def study_metadata(settings: Ablate, dataset: Dataset) -> dict[str, Any]:
    """Return the settings that all ablations in one result file share."""
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


def stored_ablations(file: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the ablations stored in a result file; empty if it does not exist or has different metadata.

    Raises:
      UserError: if the file is not a result file of this script.
    """
    if not file.is_file():
        return {}
    try:
        result = json.loads(file.read_text())
        return result["ablations"] if all(result[key] == value for key, value in metadata.items()) else {}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not a result file of ablate.py: pass a different --to") from error


def table(result: dict[str, Any]) -> Table:
    """Return a table of the error differences, ablated minus base."""
    base = [f"{mean(values):.1%}" if None not in values else "—" for values in result["base_errors"].values()]
    title = (
        f"{result['base']} on {result['images']} {result['split']} images of {result['data']}: top-1 {base[0]}, top-5 {base[1]}"
    )
    rows = Table("error difference, points", "top-1", "top-5", "paper", "original logs", title=title, title_justify="left")
    for name, metrics in result["ablations"].items():
        ours = [format_difference(metrics[metric]) for metric in ("top1", "top5")]
        published = ABLATIONS.get(name, Ablation(name, ""))
        rows.add_row(
            name.replace("_", "-"), *ours, published.paper_text or format_errors(published.paper), format_errors(published.logged)
        )
    return rows


def format_difference(values: dict[str, Any]) -> str:
    """Format a difference in percentage points, with its confidence interval."""
    return "diverged" if values["delta"] is None else str(PairedDifference(values["delta"], values["low"], values["high"]))


def format_errors(errors: Errors) -> str:
    """Format differences of the top-1 and top-5 error in percentage points."""
    return " / ".join("—" if error is None else f"{100 * error:+.2f}" for error in errors)


def main() -> None:
    exit_on_sigterm()
    settings = tyro.cli(Ablate, config=(tyro.conf.FlagCreatePairsOff,))
    options = Options(placement=settings.placement, devices=settings.devices)
    configure_training(options, load_config(settings.base).network.towers)
    result = ablate(settings)
    console.print(table(result))
    seeds = len(result["seeds"])
    interval = "no confidence interval with one seed" if seeds < 2 else "95% confidence intervals in parentheses"
    console.print(f"{result['epochs']} epochs, {seeds} seed(s), {result['views']} view(s): {interval}", markup=False)
    print(json.dumps(result))


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
