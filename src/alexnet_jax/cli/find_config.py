"""Lookup of the training config or network that an argument names: by name, in a Python file, or of a trained network."""

from alexnet_jax.configs import config_names, load_config
from alexnet_jax.errors import UserError
from alexnet_jax.files import expanded
from alexnet_jax.model.catalog import NETWORKS
from alexnet_jax.model.network import Network
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.weights.trained_model import load_run_config

_PATHS = "or a Python file that defines CONFIG, a run folder, a checkpoint or a .safetensors file"


def find_config(name: str | None) -> TrainConfig:
    """Return the config of the given name, or the one of a trained network.

    Args:
      name: name of a config, path of a Python file that defines `CONFIG`, or path of a trained network as for `load`.

    Raises:
      UserError: if there is no such config, or the network was not trained by this package.
    """
    if name is not None and _is_config(name):
        return load_config(name)
    if name is None or not expanded(name).exists():
        problem = "pass one config" if name is None else f"there is no config {name!r}"
        raise UserError(f"{problem}: alexnet-jax schedule CONFIG, one of {', '.join(config_names())}, {_PATHS}")
    training = load_run_config(name).training
    if training is None:
        raise UserError(f"{name} was not trained by this program, so that its schedule is unknown: pass a config or a run folder")
    return training


def find_network(name: str | None) -> Network:
    """Return the network of the given name, the one that the config of this name trains, or a trained network.

    Args:
      name: name of a network or a config, path of a Python file that defines `CONFIG`, or path of a trained network as for
        `load`.

    Raises:
      UserError: if there is no such network or config.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    if name is not None and _is_config(name):
        return load_config(name).network
    if name is None or not expanded(name).exists():
        names = ", ".join({**NETWORKS, **dict.fromkeys(config_names())})
        problem = "pass one network or config" if name is None else f"there is no network or config {name!r}"
        raise UserError(f"{problem}: alexnet-jax summary NETWORK, one of {names}, {_PATHS}")
    return load_run_config(name).network


def _is_config(name: str) -> bool:
    return name.endswith(".py") or name in config_names()
