"""Opening of a run folder for training: lock, `--fresh`, and comparison with the settings of the earlier run in it."""

import json
import shutil
import tempfile
import textwrap
from collections.abc import Iterable
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from alexnet_jax.errors import UserError
from alexnet_jax.files import lock_file, resolved
from alexnet_jax.training.config import Options
from alexnet_jax.training.run_config import RunConfig
from alexnet_jax.training.run_directory import CONFIG, CONFUSIONS, DATA_SHEET, LOG, MEAN_IMAGE, RESULT, RunDirectory

LOCK = ".lock"
"""Name of the file that is locked during training."""
_FILES = (
    LOG, RESULT, CONFUSIONS, MEAN_IMAGE, "curves.png", "kernels.png", "report.html", "colors.png", "colors.json",
    "predictions.png", "retrieval.png", DATA_SHEET,
)  # fmt: skip
"""Files in a run folder, besides its config and lock."""
_FOLDERS = {
    "checkpoints": ("*[0-9]", "*[0-9].orbax-checkpoint-tmp*"),
    "damaged": ("*",),
    "tensorboard": ("events.out.tfevents.*",),
    "evaluation": ("*/errors.json", "*/classes.csv", "*/predictions-*.csv", "*/confusion-*.csv", "*/confusion-*.png"),
    "ensemble": ("*/errors.json", "*/classes.csv", "*/predictions-*.csv", "*/confusion-*.csv", "*/confusion-*.png"),
}
"""Folders in a run folder, and patterns of what this package writes there."""
_PATTERN_CHARACTERS = "*?[]"
_NEW_RUN = "choose a different --run, or pass --fresh to start over"


def open_run(folder: Path, config: RunConfig, options: Options) -> RunDirectory:
    """Create or reopen a run folder for training. The caller closes it.

    Args:
      folder: run folder.
      config: config of the training.
      options: `fresh` deletes what an earlier run wrote; `change_settings` accepts settings that differ from those of the earlier
        run.

    Raises:
      UserError: if the folder cannot be written to, contains something else than a run, is used by another process, or
        contains a run with different settings.
    """
    _check_path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not is_run_directory(folder):
            if (folder / CONFIG).is_file() and (folder / "checkpoints").is_dir():
                _ = RunDirectory(folder).config  # raises if it is damaged
            names = ", ".join(sorted(file.name for file in folder.iterdir())[:3])
            raise UserError(f"{folder} is not a run folder (it contains {names}): choose a different --run")
        lock = lock_file(
            folder / LOCK, f"another process is training in {folder}: wait for it to finish, or choose a different --run"
        )
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}): choose a different --run") from error
    run = RunDirectory(folder, lock=lock)
    try:
        if options.fresh:
            delete_run(folder)
        elif (folder / CONFIG).exists():
            check_same_config(run, config, change_settings=options.change_settings)
        run.checkpoints.mkdir(exist_ok=True)
        # Written before anything else, so that the folder is known to be a run folder even if this process is killed.
        if options.fresh or not (folder / CONFIG).exists():
            run.write(CONFIG, config.to_json())
    except BaseException:
        run.close()
        raise
    return run


def is_run_directory(folder: Path) -> bool:
    """Return whether a folder is a run folder, possibly of a run that stopped at its start, or is empty."""
    try:
        return {"network", "data"} <= RunDirectory(folder).config.keys()
    except (FileNotFoundError, NotADirectoryError, UserError):
        partial = {f".{CONFIG}.partial", LOCK}
        return {file.name for file in folder.iterdir()} <= partial


def delete_run(folder: Path) -> None:
    """Delete what this package wrote to a run folder, except its config and lock; keep everything else.

    If the process is killed in between, the folder is that of an unfinished run.
    """
    (folder / RESULT).unlink(missing_ok=True)
    deleted = Path(tempfile.mkdtemp(prefix=".deleted-", dir=folder))
    for name, patterns in _FOLDERS.items():
        for pattern in patterns:
            for file in (folder / name).glob(pattern):
                target = deleted / name / file.relative_to(folder / name)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.rename(target)
        for subfolder in (*(folder / name).glob("*/"), folder / name):
            if subfolder.is_dir() and not any(subfolder.iterdir()):
                subfolder.rmdir()
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(deleted)


def check_same_config(run: RunDirectory, config: RunConfig, *, change_settings: bool) -> None:
    """Check that an existing run has the settings of a training that continues it. The number of epochs may differ.

    Args:
      run: existing run.
      config: config of the training.
      change_settings: whether settings other than the network, the data and the batch size may differ.

    Raises:
      UserError: if they differ, with the first differences.
    """
    different = _differences(RunConfig.from_json(run.config, run.folder), config)
    fixed = [name for name in different if name.split(".")[0] in ("network", "data", "batch_size")]
    if not different or (change_settings and not fixed):
        return
    shown = "; ".join(_difference(name, *different[name]) for name in (fixed or list(different))[:3])
    keep = "" if set(different) - _schedule_settings(different) else ", --keep-schedule to continue with its schedule"
    advice = _NEW_RUN if fixed else f"{_NEW_RUN}{keep}, or --change-settings to continue with the new ones"
    raise UserError(f"{run.folder} has other settings ({shown}): {advice}")


def find_run_with_other_schedule(folder: Path, config: RunConfig) -> Path | None:
    """Return a run beside `folder` with other epochs and a schedule scaled to them, but otherwise the same settings, or None.

    Args:
      folder: run folder of the training, which does not exist yet.
      config: config of the training.
    """
    for file in sorted(folder.parent.glob(f"*/{CONFIG}")):
        try:
            other = RunConfig.from_json(RunDirectory(file.parent).config, file.parent)
        except (OSError, UserError):
            continue
        different = _differences(other, config)
        other_epochs = other.training and config.training and other.training.epochs != config.training.epochs
        if other_epochs and different and set(different) == _schedule_settings(different):
            return file.parent
    return None


_NOT_COMPARED = ("epochs", "data.path", "data.display_names")
"""Settings that do not identify a run. A data set is identified by the checksums of its files, wherever it is."""


def _differences(before: RunConfig, now: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Return the values of the settings that differ, by name, except those that do not identify a run."""
    old, new = (_flat(json.loads(json.dumps(config.to_json()))) for config in (before, now))  # tuples become lists
    names = [name for name in dict.fromkeys((*new, *old)) if name not in _NOT_COMPARED and old.get(name) != new.get(name)]
    return {name: (old.get(name), new.get(name)) for name in names}


def _schedule_settings(names: Iterable[str]) -> set[str]:
    """Return those of the settings that --keep-schedule keeps."""
    return {name for name in names if name.split(".")[0] in ("schedule", "layer_rates", "color_epochs")}


def _flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested JSON objects as one, with names such as augmentation.crop."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _difference(name: str, before: Any, now: Any) -> str:
    """Describe how a setting has changed; of lists, the first element that has."""
    if isinstance(before, list) and isinstance(now, list):
        pairs = [(old, new) for old, new in zip_longest(before, now) if old != new]
        before, now = pairs[0]
    shorten = partial(textwrap.shorten, width=80, placeholder=" …")
    return f"{name} was {shorten(str(before))}, is {shorten(str(now))}"


def _check_path(folder: Path) -> None:
    """Check that a path can be used, and that it is not inside another run.

    Raises:
      UserError: if it contains characters that Orbax takes for patterns, or is a part of a run folder.
    """
    path = resolved(folder)
    if found := [character for character in _PATTERN_CHARACTERS if character in f"{folder}{path}"]:
        raise UserError(
            f"{folder} contains {found[0]}, which the checkpoint library takes for a pattern: choose a different --run"
        )
    for parent in path.parents:
        if (parent / CONFIG).is_file() and (parent / "checkpoints").is_dir() and is_run_directory(parent):
            raise UserError(f"{folder} is inside the run folder {parent}: pass --run {parent}")
