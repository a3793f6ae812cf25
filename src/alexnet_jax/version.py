"""Version of the package, in a module that all others can import, and versions of what results depend on."""

import platform
from importlib.metadata import version

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Return the versions of this package, of Python, and of the packages that results depend on."""
    packages = {name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")}
    return {"alexnet-jax": __version__, "python": platform.python_version(), **packages}
