"""Ablation study: train a network with and without each of its components, from the same seeds, and compare the errors.

    python experiments/ablate.py --no-lrn
    python experiments/ablate.py --no-lrn --no-overlap --one-gpu --data path/to/photos --seeds 0 1 2

Each flag is a separate ablation; `--together` makes all the named changes to one network. The flags are those of `train`. The
default is the quickstart config on synthetic images, which is enough to check that everything works. The paper's differences of
one or two points are for ImageNet and need `--base two_tower --data imagenet --epochs 90`.

If a training diverges, its network is trained again with all seeds at a third of the learning rate, and the table says so.

Each config is trained in an ordinary run for each seed. To resume after an interruption, run the same command; finished runs are
not repeated.
"""

import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Annotated, Any

import tyro
from paired_ci import PairedDifference, paired_difference
from paper_tables import THIRD
from published_results import ABLATIONS, Ablation, Errors
from rich.table import Table

from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.cli.process import configure_training
from alexnet_jax.configs import load_config
from alexnet_jax.console import console, count
from alexnet_jax.data.find import find_dataset
from alexnet_jax.data.records import Dataset
from alexnet_jax.errors import DivergedError, UserError
from alexnet_jax.evaluation.predictor import Predictor, Views
from alexnet_jax.files import write_json
from alexnet_jax.parallel.mesh import Placement
from alexnet_jax.training.config import Options, TrainConfig
from alexnet_jax.training.preemption import StopOnSignal, exit_on_sigterm
from alexnet_jax.training.progress import format_duration
from alexnet_jax.training.train import train
from alexnet_jax.training.variants import Variant
from alexnet_jax.weights.trained_model import load


@dataclass(frozen=True)
class Ablate:
    """Train with and without a component, and compare the errors.

    Attributes:
      variant: the changes.
      together: make all changes to one network.
      base: name or file of the config to change.
      data: data set, as for `train`; None uses the default data of the config.
      epochs: epochs per run; the milestones of the schedule are scaled accordingly.
      learning_rate: initial learning rate of all trainings; None uses that of the config.
      seeds: random seeds; the base and every ablation are trained once per seed.
      views: views to average predictions over; the paper uses ten.
      data_dir: folder of prepared data sets.
      runs_dir: folder of run folders.
      placement: placement of towers on devices, as for `train`.
      devices: number of devices, as for `train`.
      to: JSON file for the result, rewritten after every run; None uses RUNS_DIR/ablate.json. Ablations with the same
        settings that are already in the file are kept.
    """

    variant: Annotated[Variant, tyro.conf.OmitArgPrefixes] = field(default_factory=Variant)
    together: bool = False
    base: str = "quickstart"
    data: str | None = None
    epochs: int = 20
    learning_rate: float | None = None
    seeds: tuple[int, ...] = (0, 1)
    views: Views = "ten"
    data_dir: Path = Path("data")
    runs_dir: Path = Path("runs")
    placement: Placement = "auto"
    devices: int | None = None
    to: Path | None = None


@dataclass
class Arm:
    """Network of the study, which is trained with every seed.

    Attributes:
      name: name of the network.
      config: config with the learning rate that is used.
      top1: top-1 error for each seed so far, a fraction, or None where the training diverged.
      top5: the same for the top-5 error.
      first_try: learning rate and errors of the first try, if a training diverged in it.
    """

    name: str
    config: TrainConfig
    top1: list[float | None] = field(default_factory=list)
    top5: list[float | None] = field(default_factory=list)
    first_try: dict[str, Any] | None = None

    def train(self, seed: int, settings: Ablate, dataset: Dataset) -> None:
        """Train with a further seed; if this is the first training that diverges, with all seeds at a third of the rate."""
        seeds = [*settings.seeds[: len(self.top1)], seed]
        self._add(seed, settings, dataset)
        if None not in self.top1 or self.first_try:
            return
        rate = self.config.learning_rate
        console.print(f"training {self.name} again with learning rate {rate / 3:g}, a third of {rate:g}", style="yellow")
        self.first_try = {"learning_rate": rate, "top1": self.top1, "top5": self.top5}
        self.config, self.top1, self.top5 = replace(self.config, learning_rate=rate / 3), [], []
        for each in seeds:
            self._add(each, settings, dataset)

    def _add(self, seed: int, settings: Ablate, dataset: Dataset) -> None:
        top1, top5 = train_and_test(self.name, replace(self.config, seed=seed), settings, dataset)
        self.top1.append(top1)
        self.top5.append(top5)

    def retried(self) -> dict[str, Any]:
        """Return the entry of the result that records the first try; empty if no training diverged in it."""
        retried = {"learning_rate": self.config.learning_rate, "first_try": self.first_try}
        return {"retried": retried} if self.first_try else {}


def requested_variants(settings: Ablate) -> dict[str, Variant]:
    """Return the variants to compare with the base, by name.

    Raises:
      UserError: if no flag requests a change.
    """
    if not settings.variant.name:
        flags = "--no-lrn, --one-gpu, --without-layer NAME, --nonlinearity NAME, --crop-size PIXELS"
        raise UserError(f"no ablation requested: pass {flags} or another one that --help lists")
    return {settings.variant.name: settings.variant} if settings.together else settings.variant.parts()


def ablation_configs(settings: Ablate) -> dict[str, TrainConfig]:
    """Return the base config, under the name "base", and the ablated configs, by name.

    Raises:
      UserError: if an ablation does not apply to the base network, or `settings.epochs` or `settings.seeds` is invalid.
    """
    if settings.epochs < 1 or not settings.seeds or len(set(settings.seeds)) < len(settings.seeds):
        raise UserError("--epochs must be at least 1, and --seeds must be one or more distinct numbers")
    base = load_config(settings.base).with_epochs(settings.epochs)
    if settings.learning_rate is not None:
        base = replace(base, learning_rate=settings.learning_rate)
    return {"base": base, **{name: variant.apply(base) for name, variant in requested_variants(settings).items()}}


def ablate(settings: Ablate) -> dict[str, Any]:
    """Train all configs that are not trained yet, and return the comparison, which is also written to `settings.to`."""
    base, *ablated = arms = [Arm(name, config) for name, config in ablation_configs(settings).items()]
    dataset = find_dataset(settings.data, base.config.default_data, settings.data_dir)
    to = settings.to or settings.runs_dir / "ablate.json"
    result, stored = {}, stored_ablations(to, study_metadata(settings, dataset))
    count, start, time_left = len(settings.seeds) * len(arms), perf_counter(), ""
    for seed in settings.seeds:
        for arm in arms:
            done = sum(len(each.top1) for each in arms)
            if done:
                time_left = f", about {format_duration((perf_counter() - start) / done * (count - done))} left"
            console.print(f"training {done + 1} of {count}: {arm.name}, seed {seed}{time_left}", style="bold", markup=False)
            arm.train(seed, settings, dataset)
            result = compare(settings, dataset, base, ablated)
            result["ablations"] = stored | result["ablations"]
            write_json(to, result)
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
    counter = Predictor(load(result.run), views=settings.views).count_errors(dataset, dataset.evaluation_split)
    images = counter.images.sum()
    return float(counter.top1_errors.sum() / images), float(counter.top5_errors.sum() / images)


def compare(settings: Ablate, dataset: Dataset, base: Arm, ablated: list[Arm]) -> dict[str, Any]:
    """Return the result as JSON: settings, errors, and their differences, ablated minus base.

    A difference is positive if the component helps, and None if any of the runs diverged.
    """
    comparison: dict[str, Any] = {}
    for arm in ablated:
        if not arm.top1:
            continue
        comparison[arm.name] = arm.retried()
        for metric in ("top1", "top5"):
            pair = {"base": list(getattr(base, metric)), "ablated": list(getattr(arm, metric))}
            comparison[arm.name][metric] = {**pair, "delta": None, "low": None, "high": None}
            errors, base_errors = ([error for error in pair[kind] if error is not None] for kind in ("ablated", "base"))
            if errors == pair["ablated"] and base_errors == pair["base"]:
                delta = paired_difference(errors, base_errors)
                comparison[arm.name][metric] |= {"delta": delta.mean, "low": delta.low, "high": delta.high}
    metadata = {**study_metadata(settings, dataset), "seeds": list(settings.seeds[: len(base.top1)])}
    return {**metadata, "base_errors": {"top1": base.top1, "top5": base.top5}, **base.retried(), "ablations": comparison}


def study_metadata(settings: Ablate, dataset: Dataset) -> dict[str, Any]:
    """Return the settings that all ablations in one result file share."""
    split = dataset.evaluation_split
    return {
        "base": Path(settings.base).stem,
        "data": dataset.path.name,
        "split": split,
        "images": dataset.manifest.splits[split],
        "epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
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
        ablations = result["ablations"]
        return ablations if all(result.get(key) == value for key, value in metadata.items()) else {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is not a result file of ablate.py: pass a different --to") from error


def table(result: dict[str, Any]) -> Table:
    """Return a table of the error differences, ablated minus base."""
    base = [f"{mean(values):.1%}" if None not in values else "—" for values in result["base_errors"].values()]
    title = (
        f"{result['base']} on {result['images']} {result['split']} images of {result['data']}: top-1 {base[0]}, top-5 {base[1]}"
        f"{THIRD if 'retried' in result else ''}"
    )
    rows = Table("error difference, points", "top-1", "top-5", "paper", "original logs", title=title, title_justify="left")
    for name, metrics in result["ablations"].items():
        note = THIRD if "retried" in metrics else ""
        ours = [format_difference(metrics[metric], note) for metric in ("top1", "top5")]
        published = ABLATIONS.get(name, Ablation(name, ""))
        rows.add_row(
            name.replace("_", "-"), *ours, published.paper_text or format_errors(published.paper), format_errors(published.logged)
        )
    return rows


def format_difference(values: dict[str, Any], note: str = "") -> str:
    """Format a difference in percentage points, with its confidence interval and a note."""
    if values["delta"] is None:
        return "diverged"
    return f"{PairedDifference(values['delta'], values['low'], values['high'])}{note}"


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
    console.print(
        f"{count(result['epochs'], 'epoch')}, {count(seeds, 'seed')}, views: {result['views']}; {interval}", markup=False
    )
    print(json.dumps(result))


if __name__ == "__main__":
    with exit_on_error():
        main()
