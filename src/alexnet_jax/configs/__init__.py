"""Training configs, one per file, each with its command, the published results, and a `CONFIG` of type `TrainConfig`."""

import ast
import importlib
import importlib.util
import pkgutil
import sys
import traceback
from pathlib import Path
from types import ModuleType

from alexnet_jax.errors import UserError
from alexnet_jax.files import expanded
from alexnet_jax.training.config import TrainConfig


def config_names() -> list[str]:
    """Return the names of the configs in this package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def config_summary(name: str) -> str:
    """Return the first line of the docstring of a config of this package."""
    module = ast.parse((Path(__file__).parent / f"{name}.py").read_text("utf-8"))
    return (ast.get_docstring(module) or "").partition("\n")[0]


def load_config(name: str) -> TrainConfig:
    """Load a training config.

    Args:
      name: a config of this package, such as "two_tower", or the path of a Python file (ending in .py) that defines `CONFIG`.

    Raises:
      UserError: if there is no such config or file, or the file defines no `CONFIG`.
    """
    if name.endswith(".py"):
        return _load_file(expanded(name))
    if name not in config_names():
        raise UserError(f"no config {name!r}; choose one of {', '.join(config_names())}, or a Python file that defines CONFIG")
    return importlib.import_module(f"{__name__}.{name}").CONFIG


def import_file(file: Path) -> ModuleType:
    """Import a Python file, which defines the layers, transforms and networks in it.

    Raises:
      UserError: if there is no such file, or it raises an exception.
    """
    if not file.is_file():
        raise UserError(f"config file {file} does not exist: pass a Python file that defines CONFIG")
    spec = importlib.util.spec_from_file_location(f"alexnet_jax_config_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up annotations that are strings
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        where = f"line {line} of {file}" if line else str(file)
        raise UserError(f"{where} fails with {type(error).__name__} ({' '.join(str(error).split())}): correct it") from error
    finally:
        del sys.modules[spec.name]  # worker processes, which cannot import it, get its transforms by value
    return module


def _load_file(file: Path) -> TrainConfig:
    config = getattr(import_file(file), "CONFIG", None)
    if not isinstance(config, TrainConfig):
        raise UserError(f"{file} defines no CONFIG = TrainConfig(...); see alexnet_jax/configs/quickstart.py for an example")
    return config
