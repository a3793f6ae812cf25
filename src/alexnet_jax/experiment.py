"""What an experiment is: a network and how to train it, in a file of `experiments/` that is also its record."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tyro

from alexnet_jax.data.augment import Augmentation
from alexnet_jax.errors import UserError
from alexnet_jax.network import Network
from alexnet_jax.schedule import Cuts, Dexp, LayerRate, Plateau, Stage
from alexnet_jax.step import Precision


@dataclass(frozen=True)
class Experiment:
    """A network and its training; the defaults are those of the paper (section 5).

    Attributes:
      network: which network; its last layer takes the number of classes of the data.
      default_data: data set when none is asked for: a name under the data folder.
      epochs: cycles through the training set, at most: the schedule may end training before.
      batch_size: images in a step, all devices together.
      learning_rate: of the update rule, at the start.
      schedule: when the rate falls: by a plateau of the validation error, by cuts at fixed epochs, or by the code's dexp.
      momentum: of the update rule.
      weight_decay: of the update rule, on weights.
      layer_decays: weight decay of single layers, (name, decay), as in cuda-convnet's networks for CIFAR-10.
      bias_rate: learning rate of biases, as a multiple of that of weights.
      layer_rates: changes of the rates of single layers, in the order of their epochs.
      augmentation: how training images vary.
      color_epochs: epochs with shifts of colour; later images have none, and are not divided to make up for them. None is all.
      precision: what activities and gradients are computed in; parameters and their update are float32. The paper's GPUs
        computed in float32.
      init_from: a run, or one of its checkpoints, whose layers take the place of initial weights where name and shape are the
        same; the last one only where the classes are, too.
      init_layers: names of the layers to take; None is all that can be.
      seed: of initial weights, dropout, order and augmentation.
    """

    network: tyro.conf.Fixed[Network]
    default_data: tyro.conf.Fixed[str] = "imagenet"
    epochs: int = 90
    batch_size: int = 128
    learning_rate: float = 0.01
    schedule: Plateau | Cuts | Dexp = field(default_factory=Plateau)
    momentum: float = 0.9
    weight_decay: float = 0.0005
    layer_decays: tyro.conf.Fixed[tuple[tuple[str, float], ...]] = ()
    bias_rate: float = 1.0
    layer_rates: tyro.conf.Fixed[tuple[LayerRate, ...]] = ()
    augmentation: Augmentation = field(default_factory=Augmentation)
    color_epochs: int | None = None
    precision: Precision = "float32"
    init_from: Path | None = None
    init_layers: tuple[str, ...] | None = None
    seed: int = 0

    def in_epochs(self, epochs: int) -> "Experiment":
        """The same in so many epochs, with every change that its schedule makes at the same share of them."""

        def scaled(after: int) -> int:
            return max(1, round(after * epochs / self.epochs)) if after else 0

        schedule = self.schedule
        if isinstance(schedule, Cuts):
            biases = schedule.biases_after
            schedule = Cuts(tuple(map(scaled, schedule.after)), None if biases is None else tuple(map(scaled, biases)))
        elif isinstance(schedule, Dexp):
            schedule = replace(schedule, over=scaled(schedule.over))
        rates = tuple(replace(rate, after=scaled(rate.after)) for rate in self.layer_rates)
        color = None if self.color_epochs is None else scaled(self.color_epochs)
        return replace(self, epochs=epochs, schedule=schedule, layer_rates=rates, color_epochs=color)

    def stage(self, errors: Sequence[float]) -> Stage | None:
        """What holds in the epoch after those whose validation top-1 errors are `errors`; None if the schedule ends before.

        Raises:
          UserError: if `layer_rates` or `layer_decays` name a layer that the network does not have.
        """
        there = self.network.named_layers
        named = [change.layer for change in self.layer_rates] + [layer for layer, _ in self.layer_decays]
        if missing := [layer for layer in named if layer not in there]:
            raise UserError(f"{self.network.name} has no layer {missing[0]} to change the rate of; it has {', '.join(there)}")
        factors, epoch = self.schedule.factors(errors), len(errors)
        if factors is None:
            return None
        # Multiplied in float32, which the step has them in: what 0.1 of 0.004 is does not depend on who reckons it.
        weights = float(np.float32(self.learning_rate) * np.float32(factors.weights))
        biases = float(np.float32(self.bias_rate * self.learning_rate) * np.float32(factors.biases))
        layers: dict[str, tuple[float, float]] = {}
        for change in self.layer_rates:
            if epoch >= change.after:
                before = layers.get(change.layer, (weights, biases))
                layers[change.layer] = (change.weights, before[1] if change.biases is None else change.biases)
        color = self.augmentation.color is not None and (self.color_epochs is None or epoch < self.color_epochs)
        return Stage(weights, biases, layers, color)


def experiments_folder() -> Path:
    """`experiments/` of the current folder, or of the source tree this package is installed from."""
    here = Path.cwd() / "experiments"
    return here if here.is_dir() else Path(__file__).parents[2] / "experiments"


def experiment_names() -> list[str]:
    """Files of the experiments folder that define an `EXPERIMENT`."""
    files = sorted(experiments_folder().glob("*.py"))
    return [file.stem for file in files if "\nEXPERIMENT = " in file.read_text(encoding="utf-8")]


def known_experiments() -> str:
    """What can be asked for, for a message."""
    there = ", ".join(experiment_names())
    return f"there are: {there}" if there else "name a Python file that defines an EXPERIMENT, or go where experiments/ is"


def load_experiment(name: str) -> Experiment:
    """The experiment called `name`, or in the Python file `name`.

    Raises:
      UserError: if there is none; the message lists those there are.
    """
    file = Path(name) if name.endswith(".py") else experiments_folder() / f"{name}.py"
    if not file.is_file() or (not name.endswith(".py") and name not in experiment_names()):
        raise UserError(f"there is no experiment {name!r}; {known_experiments()}")
    spec = importlib.util.spec_from_file_location(f"experiments.{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    experiment = getattr(module, "EXPERIMENT", None)
    if not isinstance(experiment, Experiment):
        raise UserError(f"{file} defines no EXPERIMENT: see experiments/quickstart.py for one that does")
    return experiment
