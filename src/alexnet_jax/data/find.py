"""Lookup of a data set by name or path, with preparation on first use."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from alexnet_jax.console import console
from alexnet_jax.data.prepare.convert import prepare
from alexnet_jax.data.records import Dataset, is_prepared, open_dataset
from alexnet_jax.data.sources import synthetic, tfds
from alexnet_jax.data.sources.held_out import ValidationSplit
from alexnet_jax.data.sources.layout import check_outside
from alexnet_jax.data.sources.registry import find_source
from alexnet_jax.data.sources.selected import SelectedClasses, selected_names
from alexnet_jax.errors import UserError
from alexnet_jax.files import expanded, resolved

MAX_NAME_BYTES = 100
"""Maximum length of the part of a data set's name that is the name of its source; file systems allow 255 bytes for the whole."""


def find_dataset(name: str | None, default: str, data_dir: Path, *, testing: bool = False) -> Dataset:
    """Open a data set by name or path, preparing it first if it is a source of images.

    Args:
      name: path of a prepared data set, source that `prepare` accepts, or name of a folder in `data_dir`; None uses `default`.
      default: name of the config's data set. If it does not exist, synthetic images are used instead, with a warning.
      data_dir: folder of prepared data sets.
      testing: whether the images are only tested. A folder of images without splits is then prepared as one test split, and a
        folder of splits does not need training images.

    A source is listed on each call, and prepared again if its images have changed.

    Raises:
      UserError: if the named data set does not exist or cannot be used.
    """
    dataset_name = name or default
    if dataset_name == synthetic.NAME:
        return _synthetic_dataset(data_dir)
    for path in (data_dir / dataset_name, expanded(dataset_name)):
        if is_prepared(path):
            return open_dataset(path)
    if name is None:
        console.print(
            f"{data_dir / default} does not exist: training on synthetic images instead. To prepare it, run "
            f"alexnet-jax prepare --from FOLDER --to {data_dir / default}",
            style="yellow",
        )
        return _synthetic_dataset(data_dir)
    dataset_name = os.path.expanduser(dataset_name)
    if not Path(dataset_name).exists() and not dataset_name.startswith(tfds.PREFIX):
        raise UserError(f"no data set {dataset_name!r}: pass a folder of images, a prepared data set, or a name in {data_dir}/")
    return _prepare_source(dataset_name, data_dir, testing=testing)


def select_classes(dataset: Dataset, classes: Sequence[str], data_dir: Path) -> Dataset:
    """Return the data set of some classes of a prepared data set, which is written to `data_dir` on first use.

    Args:
      dataset: prepared data set.
      classes: names of two or more of its classes; their order does not matter.
      data_dir: folder of prepared data sets.

    Raises:
      UserError: if the data set does not have one of the classes, or fewer than two are given.
    """
    names = selected_names(dataset, classes)
    if names == dataset.manifest.classes:
        return dataset
    path = data_dir / f"{dataset.path.name}-{len(names)}-classes-{_digest(json.dumps([names, dataset.checksum]).encode())}"
    return open_dataset(path) if is_prepared(path) else prepare(SelectedClasses(dataset, names), path)


def _prepare_source(name: str, data_dir: Path, *, testing: bool) -> Dataset:
    """Prepare a source of images under a name derived from its path and content, unless this is already done."""
    location = str(resolved(name)) if Path(name).exists() else name
    source = find_source(name, ValidationSplit(), testing=testing)
    check_outside(source.description, name, data_dir, "--data-dir")
    content = json.dumps([source.classes, source.num_images, source.fingerprint()])
    folder = re.sub(r"[^\w.-]+", "-", Path(location).name).encode()[:MAX_NAME_BYTES].decode(errors="ignore")
    stem = f"{folder}-{_digest(os.fsencode(location))}"
    prepared = data_dir / f"{stem}-{_digest(content.encode())}"
    if is_prepared(prepared):
        return open_dataset(prepared)
    for earlier in sorted(data_dir.glob(f"{stem}-*/")):  # folders only: `data show` writes files beside them
        console.print(f"{name} has changed since it was prepared as {earlier}: preparing it again as {prepared}", style="yellow")
    return prepare(source, prepared)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:6]


def find_training_dataset(name: str | None, trained_on: str, data_dir: Path, *, testing: bool = False) -> Dataset:
    """Open a data set as `find_dataset` does, or the training data of a network if no name is given.

    Args:
      name: see `find_dataset`; None uses `trained_on`.
      trained_on: path of the data set that the network was trained on.
      data_dir: folder of prepared data sets.
      testing: see `find_dataset`.

    Raises:
      UserError: if the data set does not exist or cannot be used.
    """
    if name is not None:
        return find_dataset(name, name, data_dir, testing=testing)
    if not is_prepared(Path(trained_on)):
        raise UserError(f"the training data {trained_on} does not exist: pass a data set with --data")
    return open_dataset(Path(trained_on))


def _synthetic_dataset(data_dir: Path) -> Dataset:
    """Open the synthetic data set, preparing it on first use, which takes half a minute on one core."""
    path = data_dir / synthetic.NAME
    return open_dataset(path) if is_prepared(path) else prepare(synthetic.SyntheticSource(), path)
