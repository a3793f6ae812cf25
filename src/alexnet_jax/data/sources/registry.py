"""Lookup of a source by path or `tfds:` name."""

from pathlib import Path

from alexnet_jax.console import console
from alexnet_jax.data.sources.base import Source
from alexnet_jax.data.sources.cifar import LAYOUTS, cifar_source
from alexnet_jax.data.sources.folders import EXPECTED_LAYOUT, ValidationSplit, folder_source
from alexnet_jax.data.sources.tfds import PREFIX, tfds_source
from alexnet_jax.errors import UserError


def find_source(name: str, validation_split: ValidationSplit, tfds_dir: str | None = None) -> Source:
    """Open the source at a path or with a `tfds:` name. The files at the path determine the type of the source.

    Args:
      name: path of a folder or an archive, or `tfds:NAME`.
      validation_split: rule that selects validation images in folders without splits.
      tfds_dir: data folder of TensorFlow Datasets; None uses its default.

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
            if path.is_dir() or path.suffix == ".tar":
                return folder_source(path, validation_split)
    archives = ", ".join(layout.archive for layout in LAYOUTS)
    problem = "does not exist: pass"
    if path.exists():
        problem = "is not a supported source: if it is an archive, unpack it first; otherwise pass"
    raise UserError(f"{path} {problem} a folder with {EXPECTED_LAYOUT}, or one of {archives}")
