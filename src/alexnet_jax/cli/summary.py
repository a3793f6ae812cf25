"""`summary`: print a network layer by layer."""

import sys

from rich.console import Console

from alexnet_jax.errors import UserError
from alexnet_jax.model.catalog import NETWORKS
from alexnet_jax.model.summary import summary_table


def run(arguments: list[str]) -> None:
    """Print a table of a network's layers."""
    if len(arguments) != 1 or arguments[0] not in NETWORKS:
        raise UserError(f"pass one network: alexnet-jax summary {'|'.join(NETWORKS)}")
    Console(width=None if sys.stdout.isatty() else 140).print(summary_table(NETWORKS[arguments[0]]))
