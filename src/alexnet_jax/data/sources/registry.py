"""Selection of the source that a path or a `tfds:` name refers to."""

from pathlib import Path

from alexnet_jax.console import console
from alexnet_jax.data.sources.base import Source
from alexnet_jax.data.sources.cifar import LAYOUTS, cifar_source
from alexnet_jax.data.sources.folders import EXPECTED_LAYOUT, ValidationSplit, folder_source
from alexnet_jax.data.sources.tfds import PREFIX, tfds_source
from alexnet_jax.errors import UserError


def find_source(name: str, validation_split: ValidationSplit, tfds_dir: str | None = None) -> Source:
    """Open the source with this path or `tfds:` name. The kind of source follows from the files at the path.

    Args:
      name: path of a folder or an archive, or `tfds:NAME`.
      validation_split: rule that selects validation images in folders without splits.
      tfds_dir: data folder of TensorFlow Datasets; None uses its default.

    Raises:
      UserError: if the path does not exist or holds no supported source.
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
    problem = "is not a supported source: unpack it first, or pass" if path.exists() else "does not exist: pass"
    raise UserError(f"{path} {problem} a folder with {EXPECTED_LAYOUT}, or one of {archives}")
