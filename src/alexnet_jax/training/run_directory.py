"""Run folder: config, log, checkpoints and result of a training run.

config.json      config, network, data set and devices
log.jsonl        one line for every tenth step {"step", "loss"} and one for every epoch {"step", "epoch", "top1_error", …};
                 matmul_fraction is the FLOP/s of training divided by those of a square matrix product on the same devices
tensorboard/     the same log as TensorBoard events, with --tensorboard
checkpoints/     the last two checkpoints and the one with the smallest validation error
mean_image.npy   mean image subtracted from images, at the size to which they are decoded; pixel values from 0 to 255
result.json      errors, throughput and time; written when training is finished
curves.png, kernels.png, report.html   figures and a report page; written when training is finished (`figures` draws more)
"""

import hashlib
import io
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from alexnet_jax.data.records import Dataset
from alexnet_jax.errors import UserError, disk_full_as_user_error
from alexnet_jax.files import atomic_write
from alexnet_jax.model.network import Network
from alexnet_jax.training.config import TrainConfig

MEAN_IMAGE = "mean_image.npy"
"""File name of the mean image in a run folder."""


class RunDirectory:
    """Run folder, which is created if it does not exist.

    Args:
      folder: run folder.
      fresh: whether to delete the existing contents of the folder.
      is_writer: whether this process writes to the folder; exactly one process of a run does.

    Raises:
      UserError: if the folder cannot be written to, or `fresh` would delete a folder that is not a run folder.
    """

    def __init__(self, folder: Path, *, fresh: bool, is_writer: bool = True):
        self.folder, self.is_writer = folder, is_writer
        if fresh and is_writer and folder.exists():
            if not _is_run_directory(folder):
                raise UserError(f"{folder} is not a run folder, so --fresh does not delete it: choose a different --run")
            # Rename the folder before deleting it: a partly deleted run folder would be resumed.
            deleted = folder.with_name(f"{folder.name}.deleted")
            shutil.rmtree(deleted, ignore_errors=True)
            shutil.rmtree(folder.rename(deleted))
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {folder} ({error.strerror}): choose a different --run") from error

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints, with one subfolder per step."""
        return self.folder / "checkpoints"

    @property
    def config(self) -> dict[str, Any]:
        """Contents of config.json: the run's config (see `run_config`) and its environment."""
        return json.loads((self.folder / "config.json").read_text())

    @property
    def result(self) -> dict[str, Any] | None:
        """Contents of result.json; None if training is not finished."""
        file = self.folder / "result.json"
        return json.loads(file.read_text()) if file.is_file() else None

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file in the folder atomically.

        Args:
          name: file name.
          content: JSON object.
        """
        self._write_bytes(name, (json.dumps(content, indent=1) + "\n").encode())

    def write_mean_image(self, mean_image: Float[np.ndarray, "size size 3"]) -> None:
        """Write the mean image (pixel values from 0 to 255), which inference with the trained network also needs."""
        content = io.BytesIO()
        np.save(content, mean_image, allow_pickle=False)
        self._write_bytes(MEAN_IMAGE, content.getvalue())

    def _write_bytes(self, name: str, content: bytes) -> None:
        if self.is_writer:
            atomic_write(self.folder / name, content)

    def resume_log(self, step: int, epochs: int) -> None:
        """Delete the log lines of steps after `step` and epochs after `epochs`, because they will be repeated."""
        kept = [line for line in self.log_lines() if line["step"] <= step and line.get("epoch", 0) <= epochs]
        self._write_bytes("log.jsonl", "".join(json.dumps(line) + "\n" for line in kept).encode())

    def log(self, **values: Any) -> None:
        """Append a line to `log.jsonl`, if this process is the writer.

        Args:
          **values: entries of the line.

        Raises:
          UserError: if the disk is full.
        """
        file = self.folder / "log.jsonl"
        if self.is_writer:
            with disk_full_as_user_error(f"for {file}"), file.open("a") as lines:
                lines.write(json.dumps(values) + "\n")

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the parsed lines of the log, without an incomplete last line."""
        file = self.folder / "log.jsonl"
        lines = []
        for line in file.read_text().splitlines() if file.is_file() else ():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
        return lines


def _is_run_directory(folder: Path) -> bool:
    """Return whether a folder is empty or a run folder, possibly of a run that stopped before its config was written."""
    names = {file.name for file in folder.iterdir()}
    return "config.json" in names or names <= {"checkpoints", ".config.json.partial", MEAN_IMAGE, f".{MEAN_IMAGE}.partial"}


def run_config(
    config: TrainConfig, network: Network, dataset: Dataset, initial_layers: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return all settings that determine the results of a run, as JSON.

    Args:
      config: training config.
      network: network to train, with the number of classes of the data set.
      dataset: training data.
      initial_layers: record of the layers copied from a trained network (see `initialization.InitialLayers`); None for random
        initialization.
    """
    recorded_separately = ("network", "default_data", "init_from", "init_layers")
    settings = {name: value for name, value in vars(config).items() if name not in recorded_separately}
    schedule = config.schedule
    return {
        "network": network.to_json(),
        **settings,
        "schedule": {"rule": type(schedule).__name__.lower(), **asdict(schedule)},
        "layer_rates": [asdict(change) for change in config.layer_rates],
        "augmentation": config.augmentation.to_json(),
        "data": {"path": str(dataset.path.resolve()), "splits": dataset.manifest.splits, "classes": dataset.manifest.classes},
        **({} if initial_layers is None else {"initial_layers": initial_layers}),
    }


def default_run_directory(runs_dir: Path, name: str, dataset: Dataset, config: dict[str, Any]) -> Path:
    """Return the run folder of a config: RUNS_DIR/NAME/DATA-seedSEED-DIGEST.

    The digest is computed from all settings except the number of epochs, so running a command again resumes its run, and running
    it with more epochs continues it.

    Args:
      runs_dir: folder of run folders.
      name: name of the config.
      dataset: training data.
      config: the run's config (see `run_config`).
    """
    settings = {key: value for key, value in config.items() if key != "epochs"}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:6]
    return runs_dir / name / f"{dataset.path.name}-seed{config['seed']}-{digest}"
