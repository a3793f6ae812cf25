"""Test at the paper's size, compiled with optimization, that a network with a NaN has no finite loss."""

import jax
import numpy as np
import pytest

from alexnet_jax import TWO_TOWER
from alexnet_jax.parallel import placement
from alexnet_jax.parallel.mesh import replicated
from alexnet_jax.training.evaluation_step import make_evaluation_step
from alexnet_jax.training.step import put_batch, random_batch
from tests.conftest import cpu_mesh


@pytest.mark.slow
def test_nan_in_any_layer_reaches_the_loss():
    mesh = cpu_mesh(TWO_TOWER, 1, split=False)
    step, batch = make_evaluation_step(TWO_TOWER, mesh), put_batch(random_batch(4, TWO_TOWER.input_size), mesh)
    params = placement.init(TWO_TOWER, mesh, jax.random.key(0))
    mean = jax.device_put(np.full((256, 256, 3), 120, np.float32), replicated(mesh))
    assert np.isfinite(step(params, batch, mean).sums.loss)
    for name, layer in params.items():
        bias = layer["bias"].at[0, 0].set(np.nan)
        assert np.isnan(step({**params, name: {**layer, "bias": bias}}, batch, mean).sums.loss), name
