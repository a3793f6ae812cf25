"""What the devices can do at most, to tell the speed of a training by."""

import time
from functools import cache

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from alexnet_jax.model.network import Network
from alexnet_jax.model.summary import summarize
from alexnet_jax.training.step import Precision

TRIES = 5


@cache
def measure_matmul_flops(mesh: Mesh, precision: Precision) -> float:
    """FLOP/s of square matrix products, one on every device of the mesh, in a fraction of a second.

    All devices multiply at once, because a CPU's cores that pose as devices have to share the CPU. The best of a few tries.
    """
    size = 1024 if mesh.devices.flat[0].platform == "cpu" else 8192
    each = P(mesh.axis_names)

    def random() -> Array:
        return jax.random.normal(jax.random.key(0), (mesh.size, size, size), precision)

    def product(a: Array) -> Array:
        return (a[0] @ a[0])[None]

    matrices = jax.jit(random, out_shardings=NamedSharding(mesh, each))()
    multiply = jax.jit(jax.shard_map(product, mesh=mesh, in_specs=each, out_specs=each))
    jax.block_until_ready(multiply(matrices))
    seconds: list[float] = []
    for _ in range(TRIES):
        began = time.perf_counter()
        jax.block_until_ready(multiply(matrices))
        seconds.append(time.perf_counter() - began)
    return mesh.size * 2 * size**3 / min(seconds)


@cache
def training_flops_per_image(network: Network) -> int:
    """Of a training step, for one image: two a multiply-accumulate, forward once and backward twice, to the inputs and to the
    weights; no gradient goes to the image."""
    macs = [layer.macs for layer in summarize(network)]
    first = next(filter(None, macs))
    return 2 * (3 * sum(macs) - first)
