"""From what a user calls a data set to an opened one."""

import hashlib
import re
from pathlib import Path

from alexnet_jax.console import console
from alexnet_jax.data import embedded, tfds
from alexnet_jax.data.prepare import prepare_path
from alexnet_jax.data.records import Dataset, is_prepared, open_dataset
from alexnet_jax.errors import UserError


def find_dataset(asked: str | None, default: str, data_dir: Path) -> Dataset:
    """Opens the data set a user asks for, preparing or drawing it where need be.

    Args:
      asked: a prepared folder, whatever `prepare` takes, or a name under `data_dir`; None for the experiment's own.
      default: the experiment's own. If it is not there, the embedded set takes its place, with a line that says so.
      data_dir: where prepared data sets are kept.

    Raises:
      UserError: if what is asked for does not exist or cannot be used.
    """
    name = asked or default
    if name == embedded.NAME:
        return embedded.embedded_dataset(data_dir)
    for path in (data_dir / name, Path(name)):
        if is_prepared(path):
            return open_dataset(path)
    if asked is None:
        console.print(
            f"{data_dir / default} is not there, so this trains on the embedded pictures; to have it: "
            f"python -m alexnet_jax prepare --from FOLDER --to {data_dir / default}",
            style="yellow",
        )
        return embedded.embedded_dataset(data_dir)
    source = Path(name)
    if not source.exists() and not name.startswith(tfds.PREFIX):
        raise UserError(f"there is no data set {name!r}: give a folder of images, a prepared folder, or a name in {data_dir}/")
    # A folder of images is prepared once, under a name of its own.
    whole = str(source.resolve()) if source.exists() else name
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    prepared = data_dir / f"{re.sub(r'[^a-zA-Z0-9_.-]+', '-', Path(whole).name)}-{digest}"
    return open_dataset(prepared) if is_prepared(prepared) else prepare_path(name, prepared)


def find_again(asked: str | None, trained_on: str, data_dir: Path) -> Dataset:
    """Opens the data set a user asks for, as `find_dataset` does, or else the one that a network was trained on.

    Raises:
      UserError: if it is not there any more, or cannot be used.
    """
    if asked is not None:
        return find_dataset(asked, asked, data_dir)
    if not is_prepared(Path(trained_on)):
        raise UserError(f"{trained_on}, which the network was trained on, is not there: say with --data what to take")
    return open_dataset(Path(trained_on))
