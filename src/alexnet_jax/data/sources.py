"""From what a user names to a source: which kind it is shows in what is there."""

from pathlib import Path

from alexnet_jax.data.folders import Division, folders
from alexnet_jax.data.source import Source
from alexnet_jax.errors import UserError


def find_source(asked: str, division: Division = Division()) -> Source:
    """The source at a path.

    Raises:
      UserError: if nothing of use is there.
    """
    path = Path(asked)
    if not path.exists():
        raise UserError(f"there is no {path}")
    if path.is_dir() or path.suffix == ".tar":
        return folders(path, division)
    raise UserError(f"{path} is not a folder or a .tar archive: unpack it first")
