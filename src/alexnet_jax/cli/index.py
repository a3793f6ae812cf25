"""`index`: store the features of each image of a data set."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from alexnet_jax.analysis.indexing import build_index
from alexnet_jax.data.find import find_training_dataset
from alexnet_jax.errors import UserError
from alexnet_jax.parallel.runtime import enable_compilation_cache
from alexnet_jax.weights.trained_model import load


@dataclass(frozen=True)
class BuildIndex:
    """Store the output of a trained network's last hidden layer for each image of a data set, to be searched by `retrieve`.

    Attributes:
      run: run folder, checkpoint RUN/checkpoints/STEP, or .safetensors file; it must stay there as long as the index is used.
      to: folder to create. It takes 4 bytes for each unit of the layer and each image: 20 GB for the paper's network on ImageNet.
      best: of a run, use the checkpoint with the smallest validation error instead of the last.
      data: a folder of images, a prepared data set, or a name in the data folder; None is the network's training data.
      data_dir: folder of prepared data sets.
      split: split to index.
      batch_size: images per batch.
    """

    run: tyro.conf.Positional[Path]
    to: Path
    best: bool = False
    data: str | None = None
    data_dir: Path = Path("data")
    split: str = "train"
    batch_size: int = 128


def run(arguments: list[str]) -> None:
    """Build the index and print its folder."""
    command = tyro.cli(BuildIndex, prog="alexnet-jax index", args=arguments)
    enable_compilation_cache()
    if command.to.exists():  # before the network is read
        raise UserError(f"{command.to} exists: pass another folder as --to, or delete it")
    model = load(command.run, best=command.best)
    dataset = find_training_dataset(command.data, model.config["data"]["path"], command.data_dir)
    print(build_index(model, dataset, command.split, command.to, batch_size=command.batch_size).path)
