"""`data show`: draw a contact sheet of a data set."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from alexnet_jax.analysis.contact_sheet import draw_contact_sheet
from alexnet_jax.cli.parsing import REGISTRY
from alexnet_jax.configs import load_config
from alexnet_jax.data.find import find_dataset
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.errors import UserError


@dataclass(frozen=True)
class ShowData:
    """Draw a contact sheet: augmented training images with their classes, and the ten test views.

    Attributes:
      data: a folder of images, a prepared data set, or a name in --data-dir.
      config: training config whose augmentation and input size are shown; None uses the paper's augmentation with crops
        of 7/8 of the stored size.
      out: PNG file to write; None uses NAME.png in the current folder.
      data_dir: folder of prepared data sets.
      seed: seed of the image order and the augmentation.
    """

    data: tyro.conf.Positional[str]
    config: str | None = None
    out: Path | None = None
    data_dir: Path = Path("data")
    seed: int = 0


def run(arguments: list[str]) -> None:
    """Draw the contact sheet and print the path of the file."""
    if not arguments:
        raise UserError("the only subcommand of data is show: run alexnet-jax data show DATA")
    commands = {"show": ShowData}
    command = tyro.extras.subcommand_cli_from_dict(commands, prog="alexnet-jax data", args=arguments, registry=REGISTRY)
    dataset = find_dataset(command.data, command.data, command.data_dir)
    if command.config is None:
        augmentation = Augmentation(image_size=dataset.manifest.size)
        input_size = dataset.manifest.size * 7 // 8
    else:
        config = load_config(command.config)
        augmentation, input_size = config.augmentation, config.network.input_size
    file = command.out or Path(f"{dataset.path.name}.png")
    draw_contact_sheet(dataset, file, augmentation, input_size=input_size, seed=command.seed)
    print(file)
