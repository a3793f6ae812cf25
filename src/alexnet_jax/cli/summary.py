"""`summary`: print a network layer by layer."""

import sys
from typing import Annotated

import tyro

from alexnet_jax.cli.find_config import find_network
from alexnet_jax.cli.parsing import parse
from alexnet_jax.model.summary import format_summary


def run(arguments: list[str]) -> None:
    """Print a table of a network's layers."""
    network = find_network(parse(_summary, "summary", arguments))
    terminal = sys.stdout.isatty()
    print(format_summary(network, width=None if terminal else 140, force_terminal=terminal))


def _summary(network: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK")] = None) -> str | None:
    """Print the layers of a network: shapes, parameters, multiply-accumulates and communication.

    Args:
      network: name of a network or of a config, a Python file that defines CONFIG, or a run folder, checkpoint or .safetensors
        file.
    """
    return network
