"""Packages that gpu_check.py needs, on a machine that may have no package index."""

import re
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def dependencies() -> list[str]:
    """Return the dependencies in pyproject.toml, without extras, as pip names them."""
    requirements = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    return [re.split(r"[^\w.-]", each)[0] for each in requirements]


def not_installed(packages: Sequence[str]) -> list[str]:
    """Return those of the packages that are not installed."""
    return [name for name in packages if not any(metadata.distributions(name=name))]


def install_hint(packages: Sequence[str]) -> str:
    """Return what is missing and how to install it on a machine without a package index."""
    names = " ".join(packages)
    return (
        f"not installed: {names}. On a machine with a package index and the same Python: pip download --dest wheels {names}; "
        f"copy wheels/ here; python3 -m pip install --no-index --find-links wheels {names}"
    )
