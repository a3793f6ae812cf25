"""`summary`: print a network layer by layer."""

import sys
from typing import Annotated

import tyro

from alexnet_jax.cli.parsing import parse
from alexnet_jax.configs import config_names, load_config
from alexnet_jax.errors import UserError
from alexnet_jax.model.catalog import NETWORKS
from alexnet_jax.model.network import Network
from alexnet_jax.model.summary import format_summary


def run(arguments: list[str]) -> None:
    """Print a table of a network's layers."""
    network = find_network(parse(_summary, "summary", arguments))
    terminal = sys.stdout.isatty()
    print(format_summary(network, width=None if terminal else 140, force_terminal=terminal))


def _summary(network: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK")] = None) -> str | None:
    """Print the layers of a network: shapes, parameters, multiply-accumulates and communication.

    Args:
      network: name of a network or of a config, or a Python file that defines CONFIG.
    """
    return network


def find_network(name: str | None) -> Network:
    """Return the network of the given name, or the one that the config of this name trains.

    Args:
      name: name of a network or a config, or the path of a Python file that defines `CONFIG`.

    Raises:
      UserError: if there is no such network or config.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    names = {**NETWORKS, **dict.fromkeys(config_names())}
    if name is None or not (name.endswith(".py") or name in names):
        choices = f"{', '.join(names)}, or a Python file that defines CONFIG"
        raise UserError(f"pass one network or config: alexnet-jax summary NETWORK, one of {choices}")
    return load_config(name).network
