"""`index`: store the features of all images of a data set for `retrieve`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from alexnet_jax.analysis.code_search import build_codes, check_bits
from alexnet_jax.analysis.indexing import build_index
from alexnet_jax.cli.parsing import parse
from alexnet_jax.cli.process import configure_inference
from alexnet_jax.data.find import find_training_dataset
from alexnet_jax.errors import check_number
from alexnet_jax.parallel.distributed import (
    DistributedOptions,
    check_same_settings,
    is_main_process,
    main_process_first,
    sync_processes,
)
from alexnet_jax.weights.trained_model import load


@dataclass(frozen=True)
class BuildIndex:
    """Store the outputs of a trained network's last hidden layer for all images of a split, for `retrieve` to search.

    Attributes:
      run: run folder, checkpoint RUN/checkpoints/STEP, or .safetensors file. Keep it, because `retrieve` loads the network
        again.
      to: folder to create, or an index of the same network and images, which is only opened; None uses `index` in the run folder.
        Its size is 4 bytes per image and unit of the layer: 20 GB for the paper's network on ImageNet.
      best: for a run folder, use the checkpoint with the smallest validation error instead of the latest one.
      data: a folder of images, a prepared data set, or a name in --data-dir; None uses the network's training data.
      data_dir: folder of prepared data sets.
      split: split to index.
      batch_size: images per batch, on all devices together.
      devices: number of devices to use in every process; None uses all GPUs, or one CPU device.
      processes: arguments for several processes, which divide each batch: coordinator, number of processes and index of this one.
      bits: also train an autoencoder, and store a binary code of this many bits for each image, a multiple of 8, with which
        `retrieve` searches without reading all features; 128, for example. None stores no codes, and keeps those of an
        existing index.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    to: Path | None = None
    best: bool = False
    data: str | None = None
    data_dir: Path = Path("data")
    split: str = "train"
    batch_size: int = 128
    devices: int | None = None
    processes: Annotated[DistributedOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=DistributedOptions)
    bits: int | None = None


def run(arguments: list[str]) -> None:
    """Build the index and print its folder."""
    command = parse(BuildIndex, "index", arguments)
    check_number("--batch-size", command.batch_size, at_least=1)
    if command.bits is not None:
        check_bits(command.bits)
    configure_inference(command.devices, command.processes)
    model = load(command.run, best=command.best)
    to = command.to or model.output_dir / "index"
    with main_process_first("prepare data"):
        dataset = find_training_dataset(command.data, model.config.data.path, command.data_dir)
    check_same_settings([model.config.to_json(), model.step, dataset.checksum, command.split, command.batch_size, command.bits])
    index = build_index(model, dataset, command.split, to, batch_size=command.batch_size, devices=command.devices)
    with main_process_first("build codes"):
        if command.bits is not None and is_main_process():
            build_codes(index, command.bits)
    if is_main_process():
        print(index.path)
    sync_processes("index")
