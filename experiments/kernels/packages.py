"""Check of the packages that gpu_check.py needs, on a machine that may have no access to a package index."""

import re
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def dependencies() -> list[str]:
    """Return the names of the dependencies in pyproject.toml, without versions and extras."""
    requirements = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    return [re.split(r"[^\w.-]", each)[0] for each in requirements]


def not_installed(packages: Sequence[str]) -> list[str]:
    """Return the packages that are not installed."""
    return [name for name in packages if not any(metadata.distributions(name=name))]


def install_hint(packages: Sequence[str]) -> str:
    """Return a message that names missing packages and says how to install them without access to a package index."""
    names = " ".join(packages)
    return (
        f"missing packages {names}; on a machine with a package index and the same Python version, run `pip download --dest "
        f"wheels {names}`, copy wheels/ here, and run `python3 -m pip install --no-index --find-links wheels {names}`"
    )
