"""The folder of a run: its configuration, its log, its result.

config.json    what was trained, on what, where
log.jsonl      a line for every tenth step {"step", "loss"} and for every epoch {"step", "epoch", "top1_error", …};
               matmul_fraction is the FLOP/s of training as a share of a square matrix product's on the same devices
tensorboard/   the same for TensorBoard, if asked for
checkpoints/   the last two states, and that with the smallest validation error
mean_image.npy what is subtracted from images, at the size they are decoded to, gray levels
result.json    errors, speed and time, once it is finished
curves.png, kernels.png, report.html   pictures, and a page of all this, once it is finished; `figures` draws more
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


class RunDirectory:
    """A run's folder, new or begun before.

    Args:
      folder: of the run.
      fresh: delete what it holds.
      is_writer: whether this process writes to the folder; only one of several may.
    """

    def __init__(self, folder: Path, *, fresh: bool, is_writer: bool = True):
        self.folder, self.is_writer = folder, is_writer
        if fresh and is_writer and folder.exists():
            if not _is_a_run(folder):
                raise UserError(f"{folder} is no run folder, so --fresh does not delete it: give another --run")
            # Under another name first: half deleted, it would be a run to go on with.
            deleted = folder.with_name(f"{folder.name}.deleted")
            shutil.rmtree(deleted, ignore_errors=True)
            shutil.rmtree(folder.rename(deleted))
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}") from error

    @property
    def checkpoints(self) -> Path:
        """Their folder, one folder a step."""
        return self.folder / "checkpoints"

    @property
    def config(self) -> dict[str, Any]:
        """See `run_config`."""
        return json.loads((self.folder / "config.json").read_text())

    @property
    def result(self) -> dict[str, Any] | None:
        """What the run came to, if it is finished."""
        file = self.folder / "result.json"
        return json.loads(file.read_text()) if file.is_file() else None

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Writes a JSON file of the folder, whole or not at all."""
        self._replace(name, (json.dumps(content, indent=1) + "\n").encode())

    def write_mean_image(self, mean_image: Float[np.ndarray, "size size 3"]) -> None:
        """Writes what is subtracted from images: whoever uses the network needs it, too."""
        content = io.BytesIO()
        np.save(content, mean_image, allow_pickle=False)
        self._replace(MEAN_IMAGE, content.getvalue())

    def _replace(self, name: str, content: bytes) -> None:
        if self.is_writer:
            atomic_write(self.folder / name, content)

    def resume_log(self, step: int, epochs: int) -> None:
        """Cuts off what was logged after `step` or of later `epochs`: those are about to come again."""
        kept = [line for line in self.log_lines() if line["step"] <= step and line.get("epoch", 0) <= epochs]
        self._replace("log.jsonl", "".join(json.dumps(line) + "\n" for line in kept).encode())

    def log(self, **values: Any) -> None:
        """Adds a line to `log.jsonl`, in the process that writes.

        Raises:
          UserError: if the disk is full.
        """
        file = self.folder / "log.jsonl"
        if self.is_writer:
            with disk_full_as_user_error(f"for {file}"), file.open("a") as lines:
                lines.write(json.dumps(values) + "\n")

    def log_lines(self) -> list[dict[str, Any]]:
        """The log so far; a last line that was cut off is left out."""
        file = self.folder / "log.jsonl"
        lines = []
        for line in file.read_text().splitlines() if file.is_file() else ():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
        return lines


def _is_a_run(folder: Path) -> bool:
    """Whether it is a run's, perhaps ended before it began, or empty."""
    names = {file.name for file in folder.iterdir()}
    return "config.json" in names or names <= {"checkpoints", ".config.json.partial", MEAN_IMAGE, f".{MEAN_IMAGE}.partial"}


def run_config(
    config: TrainConfig, network: Network, dataset: Dataset, initial_layers: dict[str, Any] | None = None
) -> dict[str, Any]:
    """All that decides the numbers of a run, as JSON; `pretrained` is what it begins with, see `pretrained.Pretrained`."""
    elsewhere = ("network", "default_data", "init_from", "init_layers")
    settings = {name: value for name, value in vars(config).items() if name not in elsewhere}
    schedule = config.schedule
    return {
        "network": network.to_json(),
        **settings,
        "schedule": {"rule": type(schedule).__name__.lower(), **asdict(schedule)},
        "layer_rates": [asdict(change) for change in config.layer_rates],
        "augmentation": asdict(config.augmentation),
        "data": {"path": str(dataset.path.resolve()), "splits": dataset.manifest.splits, "classes": dataset.manifest.classes},
        **({} if initial_layers is None else {"initial_layers": initial_layers}),
    }


def default_run_directory(runs_dir: Path, name: str, dataset: Dataset, config: dict[str, Any]) -> Path:
    """The same settings have the same folder, so that the same command goes on; more epochs are the same training, longer."""
    decisive = {key: value for key, value in config.items() if key != "epochs"}
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:6]
    return runs_dir / name / f"{dataset.path.name}-seed{config['seed']}-{digest}"
