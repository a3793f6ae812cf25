"""Four CPU devices: two towers, twice. Shapes and types of every call are checked against the signatures."""

import tempfile

from jaxtyping import install_import_hook

with install_import_hook("alexnet_jax", "beartype.beartype"):
    from alexnet_jax import devices

    devices.pose_as(4)

    import alexnet_jax.train  # noqa: F401  what is imported here is checked

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from alexnet_jax.architectures import Network
from alexnet_jax.layers import Conv, Dense, Dropout, LocalResponseNorm, MaxPool, ReLU

collect_ignore = ["parity/transcription.py", "numpy_network.py"]  # no tests, and one needs PyTorch

jax.devices()  # four from here on, whatever a test asks for

# Many tests compile the same step.
jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp())
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

TINY = Network(
    name="tiny",
    input_size=29,
    layers=(
        Conv(8, name="conv1", kernel=5, stride=2, padding=(0, 2), std=0.1), ReLU(), LocalResponseNorm(alpha=0.01), MaxPool(3, 2),
        Conv(12, name="conv2", kernel=3, padding=(1, 1), bias=1.0, std=0.2), ReLU(), LocalResponseNorm(alpha=0.01), MaxPool(3, 2),
        Conv(10, name="conv3", kernel=3, padding=(1, 1), reads="all", std=0.2), ReLU(),
        Dense(16, name="fc6", reads="all", bias=1.0, std=0.1), ReLU(), Dropout(0.5),
        Dense(7, name="fc7", reads="all", std=0.2),
    ),
)  # fmt: skip
"""Two towers in miniature. Seven classes, so that the towers cannot share them evenly."""


@pytest.fixture
def tiny() -> Network:
    return TINY


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def mesh_of(network: Network, data: int, *, split: bool) -> Mesh:
    """The first devices as a mesh with `data` parts of the batch."""
    from alexnet_jax.placement import make_mesh

    devices = data * (network.towers if split else 1)
    return make_mesh(network, jax.devices()[:devices], split_towers=split)
