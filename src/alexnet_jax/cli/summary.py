"""`summary`: print a network layer by layer."""

import sys

from alexnet_jax.errors import UserError
from alexnet_jax.model.catalog import NETWORKS
from alexnet_jax.model.summary import format_summary


def run(arguments: list[str]) -> None:
    """Print a table of a network's layers, and totals."""
    if len(arguments) != 1 or arguments[0] not in NETWORKS:
        raise UserError(f"pass one network: alexnet-jax summary {'|'.join(NETWORKS)}")
    terminal = sys.stdout.isatty()
    print(format_summary(NETWORKS[arguments[0]], width=None if terminal else 140, force_terminal=terminal))
