"""What an experiment is: a network and how to train it, in a file of `experiments/` that is also its record."""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from alexnet_jax.architectures import Network
from alexnet_jax.data.augment import Augmentation
from alexnet_jax.errors import UserError


@dataclass(frozen=True)
class Experiment:
    """A network and its training; the defaults are those of the paper (section 5).

    Attributes:
      network: which network; its last layer takes the number of classes of the data.
      default_data: data set when none is asked for: a name under the data folder.
      epochs: cycles through the training set.
      batch_size: images in a step, all devices together.
      learning_rate: of the update rule, at the start.
      rate_cuts: epochs after which the rate is divided by ten; the default is what the log of the original net 145 says.
      momentum: of the update rule.
      weight_decay: of the update rule, on weights.
      bias_rate: learning rate of biases, as a multiple of that of weights.
      augmentation: how training images vary.
      seed: of initial weights, dropout, order and augmentation.
    """

    network: tyro.conf.Fixed[Network]
    default_data: tyro.conf.Fixed[str] = "imagenet"
    epochs: int = 90
    batch_size: int = 128
    learning_rate: float = 0.01
    rate_cuts: tuple[int, ...] = (25, 51, 79)
    momentum: float = 0.9
    weight_decay: float = 0.0005
    bias_rate: float = 1.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0


def experiments_folder() -> Path:
    """`experiments/` of the current folder, or of the source tree this package is installed from."""
    here = Path.cwd() / "experiments"
    return here if here.is_dir() else Path(__file__).parents[2] / "experiments"


def experiment_names() -> list[str]:
    """Files of the experiments folder that define an `EXPERIMENT`."""
    files = sorted(experiments_folder().glob("*.py"))
    return [file.stem for file in files if "\nEXPERIMENT = " in file.read_text(encoding="utf-8")]


def load_experiment(name: str) -> Experiment:
    """The experiment called `name`, or in the Python file `name`.

    Raises:
      UserError: if there is none; the message lists those there are.
    """
    file = Path(name) if name.endswith(".py") else experiments_folder() / f"{name}.py"
    if not file.is_file() or (not name.endswith(".py") and name not in experiment_names()):
        raise UserError(f"there is no experiment {name!r}; there are: {', '.join(experiment_names()) or 'none'}")
    spec = importlib.util.spec_from_file_location(f"experiments.{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    experiment = getattr(module, "EXPERIMENT", None)
    if not isinstance(experiment, Experiment):
        raise UserError(f"{file} defines no EXPERIMENT: see experiments/quickstart.py for one that does")
    return experiment
