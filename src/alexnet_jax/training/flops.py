"""FLOPs of a training step and measured matmul FLOP/s of the devices, for utilization metrics."""

import time
from functools import cache

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from alexnet_jax.model.network import Network
from alexnet_jax.model.summary import summarize
from alexnet_jax.parallel.mesh import mesh_platform, replicated
from alexnet_jax.training.config import Precision

REPEATS = 5
"""Number of timed matrix products; the fastest one is used."""


@cache
def measure_matmul_flops(mesh: Mesh, precision: Precision) -> float:
    """Measure the FLOP/s of square matrix products on all devices of the mesh.

    The measurement takes a fraction of a second. The matrices have 1024 rows on a CPU and 8192 on other devices. All devices
    multiply at the same time, because virtual CPU devices share the cores.

    Returns:
      FLOP/s of the fastest of `REPEATS` runs, summed over the devices.
    """
    size = 1024 if mesh_platform(mesh) == "cpu" else 8192

    def random_matrix() -> Array:
        return jax.random.normal(jax.random.key(0), (size, size), precision)

    def square(a: Array) -> Array:
        return (a @ a)[None]

    matrix = jax.jit(random_matrix, out_shardings=replicated(mesh))()
    multiply = jax.jit(jax.shard_map(square, mesh=mesh, in_specs=P(), out_specs=P(mesh.axis_names)))
    jax.block_until_ready(multiply(matrix))
    seconds: list[float] = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(multiply(matrix))
        seconds.append(time.perf_counter() - start)
    return mesh.size * 2 * size**3 / min(seconds)


@cache
def training_flops_per_image(network: Network) -> int:
    """Return the FLOPs of a training step per image.

    The formula is 2 * (3 * MACs of all layers - MACs of the first layer): a multiply-accumulate (MAC) counts as two FLOPs, and
    the backward pass takes twice the FLOPs of the forward pass, for the gradients of inputs and weights. The first layer needs no
    gradient of its inputs. Convolutions count in their direct form, of which a CPU takes fewer multiplications, see
    `alexnet_kernels.xla.winograd`.
    """
    macs = [layer.macs for layer in summarize(network)]
    first = next(filter(None, macs))
    return 2 * (3 * sum(macs) - first)
