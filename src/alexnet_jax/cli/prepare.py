"""`prepare`: convert images into a prepared data set, or verify one."""

from pathlib import Path
from typing import Annotated

import tyro

from alexnet_jax.cli.parsing import parse
from alexnet_jax.data.prepare.convert import PrepareOptions, prepare_path
from alexnet_jax.data.prepare.verify import verify as verify_dataset
from alexnet_jax.errors import UserError


def run(arguments: list[str]) -> None:
    """Prepare or verify a data set and print its path."""
    parse(_prepare, "prepare", arguments)


def _prepare(
    source: Annotated[str | None, tyro.conf.arg(name="from")] = None,
    to: Path | None = None,
    verify: Path | None = None,
    conversion: Annotated[PrepareOptions, tyro.conf.OmitArgPrefixes] = PrepareOptions(),  # noqa: B008 (frozen)
) -> None:
    """Convert images into a prepared data set of small square images, or verify one.

    Run an interrupted command again to resume it.

    Args:
      source: a folder of train|validation|test/<class>/*.jpg or <class>/*.jpg, where a .tar counts as a folder; the archives of
        ILSVRC or CIFAR; Parquet files of Hugging Face; WebDataset archives; or a folder or tfds:NAME that TensorFlow Datasets has
        prepared.
      to: folder to create; data/NAME makes the data set available as NAME.
      verify: prepared data set to verify by reading all of it, instead of preparing one.
      conversion: size, format and selection of the images.
    """
    if verify and not source and not to:
        verify_dataset(verify, conversion.threads)
    elif source and to and not verify:
        print(prepare_path(source, to, conversion).path)
    else:
        raise UserError("pass --from SOURCE --to data/NAME to prepare a data set, or --verify data/NAME to check one")
