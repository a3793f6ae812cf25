"""The network of "ImageNet Classification with Deep Convolutional Neural Networks" (NIPS 2012), in JAX."""

from alexnet_jax.architectures import NETWORKS, ONE_GPU, QUICKSTART, SIXTH_CONV, SOURCE_145, TWO_TOWER
from alexnet_jax.network import Network

__all__ = ["NETWORKS", "ONE_GPU", "QUICKSTART", "SIXTH_CONV", "SOURCE_145", "TWO_TOWER", "Network"]
__version__ = "0.1.0"
