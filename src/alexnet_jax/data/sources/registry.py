"""From what a user names to a source: which kind it is shows in what is there."""

from pathlib import Path

from alexnet_jax.console import console
from alexnet_jax.data.sources.base import Source
from alexnet_jax.data.sources.cifar import LAYOUTS, cifar_source
from alexnet_jax.data.sources.folders import LOOKED_FOR, ValidationSplit, folder_source
from alexnet_jax.data.sources.tfds import PREFIX, tfds_source
from alexnet_jax.errors import UserError


def find_source(asked: str, division: ValidationSplit, tfds_dir: str | None = None) -> Source:
    """The source at a path, or `tfds:NAME`.

    Args:
      asked: a folder or archive, or a name.
      division: how folders without splits are divided.
      tfds_dir: where TFDS keeps its data; None is where it usually does.

    Raises:
      UserError: if nothing of use is there.
    """
    if asked.startswith(PREFIX):
        return tfds_source(asked, tfds_dir)
    path = Path(asked)
    if path.exists():
        with console.status(f"Listing the pictures in {path}"):
            if source := cifar_source(path):
                return source
            if path.is_dir() or path.suffix == ".tar":
                return folder_source(path, division)
    archives = ", ".join(layout.archive for layout in LAYOUTS)
    advice = "unpack it first" if path.exists() else "there is nothing of this name"
    raise UserError(f"{path} is not a folder with {LOOKED_FOR}, nor one of {archives}: {advice}")
