"""`summary`: print a network layer by layer."""

import sys
from typing import Annotated

import tyro

from alexnet_jax.cli.find_config import find_network
from alexnet_jax.cli.parsing import parse
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.errors import UserError
from alexnet_jax.model.summary import format_summary
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.variants import Variant


def run(arguments: list[str]) -> None:
    """Print a table of a network's layers."""
    name, variant = parse(_summary, "summary", arguments)
    network = find_network(name)
    if variant.name:
        # The summary does not depend on the images, so these may be as large as necessary.
        augmentation = Augmentation(image_size=max(256, network.input_size, variant.crop_size or 0))
        variant_network = variant.apply(TrainConfig(network, augmentation=augmentation)).network
        if variant_network == network:
            raise UserError(f"{variant.name} changes no layer of {network.name}: omit it")
        network = variant_network
    terminal = sys.stdout.isatty()
    print(format_summary(network, width=None if terminal else 140, force_terminal=terminal))


def _summary(
    network: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK")] = None,
    variant: Annotated[Variant, tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff] = Variant(),  # noqa: B008 (frozen)
) -> tuple[str | None, Variant]:
    """Print the layers of a network: shapes, parameters, multiply-accumulates and communication.

    Args:
      network: name of a network or of a config, a Python file that defines CONFIG, or a run folder, checkpoint or .safetensors
        file.
      variant: components to remove or replace, as for `train`.
    """
    return network, variant
