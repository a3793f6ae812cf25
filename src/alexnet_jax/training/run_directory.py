"""Run folder: config, log, checkpoints and result of a training run.

config.json      config, network, data set and devices
log.jsonl        one line for every tenth step {"step", "loss"} and one for every epoch {"step", "epoch", "top1_error", …}, with
                 errors, loss and number of images if the epoch was evaluated; matmul_fraction is the FLOP/s of training divided
                 by those of a square matrix product on the same devices
tensorboard/     the same log as TensorBoard events, with --tensorboard
checkpoints/     the last two checkpoints and the one with the smallest validation error
damaged/         checkpoints that could not be read when training was resumed
mean_image.npy   mean image subtracted from images, at the size to which they are decoded; pixel values from 0 to 255
result.json      errors, throughput and time; written when training is finished
confusion.csv    numbers of evaluation images by true class (rows) and predicted class (columns); up to 1,000 classes
curves.png, kernels.png, report.html   figures and a report page; written when training is finished (`figures` draws more)
data.png         augmented training images and test views; written by `data show`
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float

from alexnet_jax.data.records import Dataset
from alexnet_jax.errors import UserError, disk_full_as_user_error
from alexnet_jax.files import atomic_write, write_json
from alexnet_jax.training.config import Options
from alexnet_jax.training.confusion import Confusions
from alexnet_jax.training.run_config import ADDED_SETTINGS, RunConfig

# Names of files in a run folder, see above.
CONFIG, LOG, RESULT = "config.json", "log.jsonl", "result.json"
MEAN_IMAGE, CONFUSIONS, DATA_SHEET = "mean_image.npy", "confusion.csv", "data.png"
_RESULT_TYPES = {
    **dict.fromkeys(("config", "split"), str),
    **dict.fromkeys(("images", "epochs", "steps", "ended_by_schedule"), int),
    **dict.fromkeys(("top1_error", "loss", "seconds", "images_per_second"), int | float),
    "top5_error": int | float | None,
}
"""Entries of result.json that are read again, with their types."""


class RunDirectory:
    """Run folder; `open_run` creates and locks one for training.

    Args:
      folder: run folder.
      is_writer: whether this process writes to the folder; exactly one process of a run does.
      lock: open lock file, closed by `close`.
    """

    def __init__(self, folder: Path, *, is_writer: bool = True, lock: IO[bytes] | None = None):
        self.folder, self.is_writer, self._lock = folder, is_writer, lock

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints, with one subfolder per step."""
        return self.folder / "checkpoints"

    @property
    def config(self) -> dict[str, Any]:
        """Contents of config.json: the run's config (see `RunConfig.to_json`) and its environment.

        Raises:
          UserError: if it is damaged.
          OSError: if it cannot be read.
        """
        return self._read_object(CONFIG, {}, "restore it, or choose a different run")

    @property
    def result(self) -> dict[str, Any] | None:
        """Contents of result.json; None if training is not finished.

        Raises:
          UserError: if it is damaged.
        """
        if not (self.folder / RESULT).is_file():
            return None
        return self._read_object(RESULT, _RESULT_TYPES, "delete it, and run the training command again")

    def _read_object(self, name: str, types: Mapping[str, Any], advice: str) -> dict[str, Any]:
        """Read a JSON object whose entries have certain types."""
        file = self.folder / name
        try:
            content = json.loads(file.read_text("utf-8"))
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict) or not all(isinstance(content.get(name, ...), kind) for name, kind in types.items()):
            raise UserError(f"{file} is damaged: {advice}")
        return content

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file in the folder atomically."""
        if self.is_writer:
            write_json(self.folder / name, content)

    def discard_result(self) -> None:
        """Delete result.json and the confusion matrix, because training continues."""
        for name in (RESULT, CONFUSIONS) if self.is_writer else ():
            (self.folder / name).unlink(missing_ok=True)

    def write_confusions(self, rows: Iterable[list[str]]) -> None:
        """Write the rows of the confusion matrix."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._write_bytes(CONFUSIONS, text.getvalue().encode())

    def write_mean_image(self, mean_image: Float[np.ndarray, "size size 3"]) -> None:
        """Write the mean image (pixel values from 0 to 255), which inference with the trained network also needs."""
        content = io.BytesIO()
        np.save(content, mean_image, allow_pickle=False)
        self._write_bytes(MEAN_IMAGE, content.getvalue())

    def read_confusions(self) -> Confusions | None:
        """Return the confusion matrix; None if training is not finished, or there are too many classes."""
        file = self.folder / CONFUSIONS
        if not file.is_file():
            return None
        try:
            with file.open(encoding="utf-8", newline="") as text:
                _, *rows = csv.reader(text)
            return Confusions.from_matrix(np.array([row[1:] for row in rows], np.int64).reshape(len(rows), len(rows)))
        except (ValueError, csv.Error):
            raise UserError(f"{file} is damaged: delete it") from None

    def _write_bytes(self, name: str, content: bytes) -> None:
        if self.is_writer:
            atomic_write(self.folder / name, content)

    def resume_log(self, step: int, epochs: int) -> None:
        """Delete the log lines of steps after `step` and epochs after `epochs`, because they will be repeated."""
        kept = [line for line in self.log_lines() if line["step"] <= step and line.get("epoch", 0) <= epochs]
        self._write_bytes(LOG, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def log(self, **values: Any) -> None:
        """Append a line to `log.jsonl`, if this process is the writer.

        Raises:
          UserError: if the disk is full.
        """
        file = self.folder / LOG
        if self.is_writer:
            with disk_full_as_user_error(f"for {file}"), file.open("a") as lines:
                lines.write(json.dumps(values) + "\n")

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the parsed lines of the log, without an incomplete last line.

        Raises:
          UserError: if one of the lines is damaged.
        """
        file = self.folder / LOG
        texts = file.read_text("utf-8", errors="replace").splitlines() if file.is_file() else []
        lines: list[dict[str, Any]] = []
        for number, text in enumerate(texts, 1):
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            if isinstance(line, dict) and isinstance(line.get("step"), int) and ("loss" in line or "epoch" in line):
                lines.append(line)
            elif number < len(texts):
                raise UserError(f"line {number} of {file} is damaged: delete this line")
        return lines


def default_run_directory(runs_dir: Path, name: str, dataset: Dataset, config: RunConfig) -> Path:
    """Return the run folder of a config: RUNS_DIR/NAME/DATA-seedSEED-DIGEST.

    The digest is computed from all settings except the number of epochs and the place of the data, so running a command again
    resumes its run, and running it with more epochs continues it. Added settings change it only if they are used.
    """
    record = config.to_json()
    del record["epochs"], record["data"]["path"]
    for setting, value in ADDED_SETTINGS.items():
        if record[setting] == value:
            del record[setting]  # so that the runs of earlier versions are found
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:6]
    return runs_dir / name / f"{dataset.path.name}-seed{record['seed']}-{digest}"


def existing_runs(name: str, options: Options) -> Path | None:
    """Return the folder to search for earlier runs: the run folder, or the folder of the config's runs; None with `fresh`."""
    return None if options.fresh else options.run or options.runs_dir / name
