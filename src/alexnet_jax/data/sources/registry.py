"""Lookup of a source by path or `tfds:` name."""

from pathlib import Path

from alexnet_jax.console import console
from alexnet_jax.data.sources.base import Source
from alexnet_jax.data.sources.cifar import LAYOUTS, cifar_source
from alexnet_jax.data.sources.file_tree import is_archive
from alexnet_jax.data.sources.folders import folder_source
from alexnet_jax.data.sources.held_out import ValidationSplit
from alexnet_jax.data.sources.layout import COMPRESSED, EXPECTED_LAYOUT, SUFFIXES
from alexnet_jax.data.sources.tfds import PREFIX, tfds_source
from alexnet_jax.errors import UserError


def find_source(name: str, validation_split: ValidationSplit, tfds_dir: str | None = None, *, testing: bool = False) -> Source:
    """Open the source at a path or with a `tfds:` name. The files at the path determine the type of the source.

    Args:
      name: path of a folder or an archive, or `tfds:NAME`.
      validation_split: rule that selects validation images in folders without splits.
      tfds_dir: data folder of TensorFlow Datasets; None uses its default.
      testing: whether the images are only tested: a folder of images without splits is then one test split, and a folder of
        splits does not need a train split.

    Raises:
      UserError: if the path does not exist or contains no supported source.
    """
    if name.startswith(PREFIX):
        return tfds_source(name, tfds_dir)
    path = Path(name)
    if path.exists():
        with console.status(f"Listing the images in {path}"):
            if source := cifar_source(path):
                return source
            if path.is_dir() or is_archive(path.name):
                return folder_source(path, validation_split, testing=testing)
    archives = ", ".join(layout.archive for layout in LAYOUTS)
    problem = "does not exist: pass"
    suffix = path.suffix.lower()
    if path.exists() and suffix in COMPRESSED:
        decompressed = path.with_suffix("" if path.stem.lower().endswith(".tar") else ".tar")
        if suffix in (".gz", ".tgz"):
            raise UserError(f"{path} is a compressed archive: run gunzip {path}, and pass {decompressed}")
        raise UserError(f"{path} is a compressed archive: unpack it, and pass the folder")
    if path.exists() and suffix in SUFFIXES:
        problem = "is a single image: pass"
    elif path.exists():
        problem = "is not a supported source: pass"
    raise UserError(f"{path} {problem} a folder with {EXPECTED_LAYOUT}, or one of {archives}")
