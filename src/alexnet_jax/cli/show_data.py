"""`data show`: draw a contact sheet of a data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from alexnet_jax.analysis.contact_sheet import draw_contact_sheet
from alexnet_jax.cli.parsing import REGISTRY
from alexnet_jax.configs import load_config
from alexnet_jax.data.find import find_dataset, find_training_dataset
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.errors import UserError
from alexnet_jax.files import check_png, expanded
from alexnet_jax.training.run_directory import CONFIG, DATA_SHEET
from alexnet_jax.weights.trained_model import load_run_config


@dataclass(frozen=True)
class ShowData:
    """Draw a contact sheet: augmented training images with their classes, and the ten test views of others.

    Attributes:
      data: a folder of images, a prepared data set, or a name in --data-dir; or a run folder, whose data set, augmentation and
        input size are shown.
      config: training config whose augmentation and input size are shown; None uses those of the run, or for a data set the
        paper's augmentation with crops of 7/8 of the stored size.
      to: PNG file to write; None uses data.png in the run folder, or NAME.png beside the prepared data set NAME, as in
        data/photos.png.
      data_dir: folder of prepared data sets.
      split: split of the images whose test views are drawn; None uses validation, test or train, the first that there is.
      seed: seed of the image order and the augmentation.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA|RUN")]
    config: str | None = None
    to: Path | None = None
    data_dir: Path = Path("data")
    split: str | None = None
    seed: int = 0


def run(arguments: list[str]) -> None:
    """Draw the contact sheet and print the path of the file."""
    if not arguments:
        raise UserError("the only subcommand of data is show: run alexnet-jax data show DATA")
    commands = {"show": ShowData}
    command = tyro.extras.subcommand_cli_from_dict(commands, prog="alexnet-jax data", args=arguments, registry=REGISTRY)
    print(show_data(command))


def show_data(command: ShowData) -> Path:
    """Draw the contact sheet and return the path of the file.

    Raises:
      UserError: if the data set does not exist or cannot be used, or the name of the file does not end in .png.
    """
    if command.to is not None:
        check_png("--to", command.to)
    folder = expanded(command.data)
    run = load_run_config(folder) if (folder / CONFIG).is_file() and (folder / "checkpoints").is_dir() else None
    if run is not None:
        dataset, file = find_training_dataset(None, run.data.path, command.data_dir), folder / DATA_SHEET
    else:
        dataset = find_dataset(command.data, command.data, command.data_dir)
        file = dataset.path.with_name(f"{dataset.path.name}.png")
    if command.config is not None:
        config = load_config(command.config)
        augmentation, input_size = config.augmentation, config.network.input_size
    elif run is not None:
        augmentation, input_size = run.augmentation, run.network.input_size
    else:
        augmentation, input_size = Augmentation(image_size=dataset.manifest.size), dataset.manifest.size * 7 // 8
    file = command.to or file
    draw_contact_sheet(dataset, file, augmentation, input_size=input_size, split=command.split, seed=command.seed)
    return file
