"""`python -m alexnet_jax COMMAND …`. Each command imports what it needs, so that help comes at once."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from alexnet_jax.errors import UserError

HELP = """usage: python -m alexnet_jax COMMAND …

  train EXPERIMENT    train an experiment of experiments/; --help lists its settings
  evaluate RUN…       top-1 and top-5 errors of a trained network, or of several and their mean
  prepare             turn images into a data set, or check one
  data show DATA      a picture of what training makes of a data set, and of the ten views of testing
  summary NETWORK     a network, layer by layer
  schedule EXPERIMENT the learning rates of a training, from epoch to epoch
  figures RUN         kernels, predictions, retrieval, and report.html, a page of all of it
  index RUN           what a trained network makes of each image of a data set, on disk
  retrieve INDEX      the images of an index that look most like a photo
  export RUN          a trained network as one file, for here or for PyTorch
  import FILE         weights of PyTorch, torchvision or Caffe as such a file

COMMAND --help says more."""


def train(arguments: list[str]) -> None:
    """`train EXPERIMENT`: trains it and prints the folder of the run."""
    from alexnet_jax.interrupt import leave_on_sigterm

    leave_on_sigterm()
    from alexnet_jax.devices import keep_programs
    from alexnet_jax.experiment import Experiment, known_experiments, load_experiment
    from alexnet_jax.processes import is_first
    from alexnet_jax.training import Options
    from alexnet_jax.training import train as run_training

    if not arguments or arguments[0].startswith("-"):
        raise UserError(f"name an experiment: python -m alexnet_jax train EXPERIMENT; {known_experiments()}")
    name, *arguments = arguments
    default = load_experiment(name)
    keep_programs()

    def command(
        experiment: Annotated[Experiment, tyro.conf.OmitArgPrefixes] = default,
        options: Annotated[Options, tyro.conf.OmitArgPrefixes] = Options(),  # noqa: B008 (frozen)
    ) -> Path:
        # The network is not for the command line, and its layers would lose their names on the way through it.
        return run_training(Path(name).stem, replace(experiment, network=default.network), options)

    config = (tyro.conf.SuppressFixed, tyro.conf.OmitSubcommandPrefixes)
    folder = tyro.cli(command, prog=f"alexnet_jax train {name}", args=arguments, config=config)
    if is_first():
        print(folder)


def evaluate(arguments: list[str]) -> None:
    """`evaluate RUN…`: measures errors and prints the file they are in."""
    from alexnet_jax.devices import keep_programs
    from alexnet_jax.evaluation.command import Evaluate
    from alexnet_jax.evaluation.command import evaluate as measure

    keep_programs()
    print(measure(tyro.cli(Evaluate, prog="alexnet_jax evaluate", args=arguments)))


def prepare(arguments: list[str]) -> None:
    """`prepare`: makes a data set or checks one, and prints where it is."""
    from alexnet_jax.data.prepare import Settings, prepare_path
    from alexnet_jax.data.verify import verify as verify_dataset

    def command(
        source: Annotated[str | None, tyro.conf.arg(name="from")] = None,
        to: Path | None = None,
        verify: Path | None = None,
        settings: Annotated[Settings, tyro.conf.OmitArgPrefixes] = Settings(),  # noqa: B008 (frozen)
    ) -> None:
        """Turn pictures into a data set of small squares, or check one. Broken off, the same command goes on.

        Args:
          source: a folder of train|validation|test/<class>/*.jpg, or <class>/*.jpg, in which a .tar counts as a folder; the
            archives of ILSVRC or CIFAR; or tfds:NAME, which TensorFlow Datasets has prepared.
          to: folder to make; data/NAME makes it known as NAME.
          verify: a prepared data set, to be read from end to end instead.
          settings: how it is prepared.
        """
        if verify and not source and not to:
            verify_dataset(verify, settings.threads)
        elif source and to and not verify:
            print(prepare_path(source, to, settings).path)
        else:
            raise UserError(
                "say what to prepare and where to, --from SOURCE --to data/NAME, or what to check, --verify data/NAME"
            )

    tyro.cli(command, prog="alexnet_jax prepare", args=arguments)


@dataclass(frozen=True)
class Show:
    """Draw a contact sheet: augmented training images with their classes, and the ten views of testing."""

    data: tyro.conf.Positional[str]
    """A folder of images, a prepared folder, or a name in the data folder."""
    experiment: str | None = None
    """Whose augmentation to show, and at which size; None is the paper's, at seven eighths of the stored size."""
    out: Path | None = None
    """The picture to write; None is NAME.png in this folder."""
    data_dir: Path = Path("data")
    """Folder of prepared data sets."""
    seed: int = 0
    """Of order and augmentation."""


def data(arguments: list[str]) -> None:
    """`data show DATA`: draws a contact sheet and prints its file."""
    from alexnet_jax.data.augment import Augmentation
    from alexnet_jax.data.locate import find_dataset
    from alexnet_jax.experiment import load_experiment
    from alexnet_jax.inspect.sheet import draw_sheet

    if arguments[:1] != ["show"]:
        raise UserError("say what to do: python -m alexnet_jax data show DATA")
    command = tyro.cli(Show, prog="alexnet_jax data show", args=arguments[1:])
    if command.experiment is None:
        dataset = find_dataset(command.data, command.data, command.data_dir)
        augmentation = Augmentation(image_size=dataset.manifest.size)
        input_size = dataset.manifest.size * 7 // 8
    else:
        experiment = load_experiment(command.experiment)
        augmentation, input_size = experiment.augmentation, experiment.network.input_size
        dataset = find_dataset(command.data, command.data, command.data_dir)
    file = command.out or Path(f"{dataset.path.name}.png")
    draw_sheet(dataset, file, augmentation, input_size=input_size, seed=command.seed)
    print(file)


def summary(arguments: list[str]) -> None:
    """`summary NETWORK`: prints its layers."""
    from rich.console import Console

    from alexnet_jax.architectures import NETWORKS
    from alexnet_jax.summary import summary_table

    if len(arguments) != 1 or arguments[0] not in NETWORKS:
        raise UserError(f"name a network: python -m alexnet_jax summary {'|'.join(NETWORKS)}")
    Console(width=None if sys.stdout.isatty() else 140).print(summary_table(NETWORKS[arguments[0]]))


def schedule(arguments: list[str]) -> None:
    """`schedule EXPERIMENT`: prints its learning rates."""
    from rich.console import Console

    from alexnet_jax.experiment import known_experiments, load_experiment
    from alexnet_jax.timetable import timetable

    if len(arguments) != 1:
        raise UserError(f"name an experiment: python -m alexnet_jax schedule EXPERIMENT; {known_experiments()}")
    Console(width=None if sys.stdout.isatty() else 140).print(timetable(load_experiment(arguments[0])))


def figures(arguments: list[str]) -> None:
    """`figures RUN`: draws what it has learned and prints the folder."""
    from alexnet_jax.devices import keep_programs
    from alexnet_jax.inspect.figures import Figures, draw_figures

    command = tyro.cli(Figures, prog="alexnet_jax figures", args=arguments)
    keep_programs()
    print(draw_figures(command))


def index(arguments: list[str]) -> None:
    """`index RUN`: makes an index and prints where it is."""
    from alexnet_jax.devices import keep_programs
    from alexnet_jax.retrieval.commands import MakeIndex, make_index

    command = tyro.cli(MakeIndex, prog="alexnet_jax index", args=arguments)
    keep_programs()
    print(make_index(command))


def retrieve(arguments: list[str]) -> None:
    """`retrieve INDEX PHOTO`: prints the images most like a photo."""
    from alexnet_jax.devices import keep_programs
    from alexnet_jax.retrieval.commands import Retrieve
    from alexnet_jax.retrieval.commands import retrieve as find

    command = tyro.cli(Retrieve, prog="alexnet_jax retrieve", args=arguments)
    keep_programs()
    find(command)


def export(arguments: list[str]) -> None:
    """`export RUN`: writes a trained network as one file and prints it."""
    from alexnet_jax.weights.commands import Export
    from alexnet_jax.weights.commands import export as write

    print(write(tyro.cli(Export, prog="alexnet_jax export", args=arguments)))


def import_(arguments: list[str]) -> None:
    """`import FILE`: makes such a file of others' weights and prints it."""
    from alexnet_jax.weights.commands import Import
    from alexnet_jax.weights.commands import import_ as make

    print(make(tyro.cli(Import, prog="alexnet_jax import", args=arguments)))


def main() -> None:
    """Runs the command that `sys.argv` names. What a user got wrong is one line on stderr and exit code 1; Ctrl-C is 130."""
    commands = {
        "train": train,
        "evaluate": evaluate,
        "prepare": prepare,
        "data": data,
        "summary": summary,
        "schedule": schedule,
        "figures": figures,
        "index": index,
        "retrieve": retrieve,
        "export": export,
        "import": import_,
    }
    name, arguments = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    if name in ("-h", "--help"):
        print(HELP)
        return
    try:
        if name not in commands:
            raise UserError(f"there is no command {name!r}; there are: {', '.join(commands)}")
        commands[name](arguments)
    except (UserError, OSError) as error:  # the system's: a full disk, a folder that may not be written to
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
