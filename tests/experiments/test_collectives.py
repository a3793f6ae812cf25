"""Test of the bytes that kernel-check counts in the collectives of lowered functions."""

from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from alexnet_jax.model.layers import DATA
from tests.conftest import cpu_mesh
from tests.tiny import TINY


def test_each_collective_counts_what_a_ring_sends(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "experiments" / "kernels")
    mesh = cpu_mesh(TINY, 4, split=False)

    def collectives(x, y):
        part = lax.psum_scatter(x, DATA, scatter_dimension=1, tiled=True)
        return lax.psum(x, DATA), lax.all_gather(part.astype(jnp.bfloat16), DATA, axis=1, tiled=True), lax.psum(y, DATA)

    mapped = jax.shard_map(collectives, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    text = jax.jit(mapped).lower(jnp.zeros((3, 8)), jnp.float32(0)).as_text()
    size = 4 * 3 * 8
    sent = {"all_reduce": 2 * size * 3 // 4 + 2 * 4 * 3 // 4, "reduce_scatter": size * 3 // 4, "all_gather": size // 2 * 3 // 4}
    assert import_module("collectives").bytes_sent(text) == sent
