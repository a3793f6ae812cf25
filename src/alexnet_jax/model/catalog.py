"""Registry of networks, for commands and files that refer to a network by its name."""

from alexnet_jax.model.alexnet import (
    FALL2009,
    FALL2011,
    ONE_GPU,
    QUICKSTART,
    SIXTH_CONV,
    SOURCE_145,
    SOURCE_146,
    TWO_COLUMNS,
    TWO_TOWER,
)
from alexnet_jax.model.relatives import BVLC_ALEXNET, CAFFENET, TORCHVISION_ALEXNET

NETWORKS = {
    network.name: network
    for network in (
        TWO_TOWER, SOURCE_145, ONE_GPU, SIXTH_CONV, SOURCE_146, FALL2009, FALL2011, TWO_COLUMNS, QUICKSTART,
        BVLC_ALEXNET, CAFFENET, TORCHVISION_ALEXNET,
    )
}  # fmt: skip
"""Networks by name, except those for CIFAR-10, which are in `cifar.CIFAR_NETWORKS`."""
