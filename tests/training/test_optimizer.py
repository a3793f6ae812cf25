"""Test of the paper's update rule against NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alexnet_jax.training.optimizer import learning_rates, paper_update


def test_paper_update_equals_numpy(rng):
    """Compare twenty steps with changing learning rates, a layer that is frozen, and a layer with a higher weight decay."""
    rates = np.where(np.arange(20) < 8, 0.01, np.where(np.arange(20) < 14, 0.001, 0.02))
    conv1_rates = np.where(np.arange(20) < 10, 0.003, 0.0)
    shapes = {"conv1": {"kernel": (2, 3), "bias": (3,)}, "fc": {"kernel": (5, 3), "bias": (3,)}}
    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    w = jax.tree.map(lambda shape: rng.normal(size=shape), shapes, is_leaf=is_shape)
    gradients = [jax.tree.map(lambda x: rng.normal(size=x.shape), w) for _ in range(20)]

    to_float32 = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)  # noqa: E731
    update = paper_update(layer_decays={"fc": 0.004})
    params = to_float32(w)
    opt_state: Any = update.init(params)
    for g, rate, conv1_rate in zip(gradients, rates, conv1_rates, strict=True):
        parameter_rates = learning_rates(params, rate, 2 * rate, {"conv1": (conv1_rate, 4 * conv1_rate)})
        updates, opt_state = update.update(to_float32(g), opt_state, params, learning_rates=parameter_rates)
        params = optax.apply_updates(params, updates)

    v = jax.tree.map(np.zeros_like, w)
    for rate, conv1_rate, g in zip(rates, conv1_rates, gradients, strict=True):
        for layer, weights, biases, weight_decay in (
            ("conv1", conv1_rate, 4 * conv1_rate, 0.0005),
            ("fc", rate, 2 * rate, 0.004),
        ):
            for name, epsilon, decay in (("kernel", weights, weight_decay), ("bias", biases, 0.0)):
                if epsilon == 0:
                    continue  # weights.cu: `if (_srcWeights == NULL && _lrs->getBaseRate() > 0)`
                v[layer][name] = 0.9 * v[layer][name] - decay * epsilon * w[layer][name] - epsilon * g[layer][name]
                w[layer][name] = w[layer][name] + v[layer][name]

    velocity = opt_state[-1].trace
    jax.tree.map(lambda actual, expected: np.testing.assert_allclose(actual, expected, atol=1e-6), params, w)
    jax.tree.map(lambda actual, expected: np.testing.assert_allclose(actual, expected, atol=1e-6), velocity, v)
    assert jax.tree.leaves(opt_state) == jax.tree.leaves(velocity), "the optimizer state is the velocity"


def test_frozen_parameters_and_their_velocity_do_not_change(rng):
    """Freeze the weights of one layer, for any gradient, and train all other parameters."""
    params = {"conv1": {"kernel": jnp.ones(3), "bias": jnp.ones(3)}, "fc": {"kernel": jnp.ones(3), "bias": jnp.ones(3)}}
    gradients = jax.tree.map(lambda w: jnp.asarray(rng.normal(size=w.shape), jnp.float32), params)
    optimizer = paper_update()
    updates: Any
    moving: Any
    after: Any
    _, moving = optimizer.update(gradients, optimizer.init(params), params, learning_rates=learning_rates(params, 0.1))
    assert all((leaf != 0).all() for leaf in jax.tree.leaves(moving))
    gradients["conv1"]["kernel"] = jnp.array([np.nan, np.inf, 1e30], jnp.float32)
    rates = learning_rates(params, 0.1, layers={"conv1": (0.0, 0.1)})
    updates, after = optimizer.update(gradients, moving, params, learning_rates=rates)
    for layer, name in (("conv1", "kernel"), ("conv1", "bias"), ("fc", "kernel"), ("fc", "bias")):
        frozen = (layer, name) == ("conv1", "kernel")
        assert ((updates[layer][name] == 0) == frozen).all()
        assert ((after[-1].trace[layer][name] == moving[-1].trace[layer][name]) == frozen).all()


def test_decay_of_a_layer_replaces_that_of_the_network():
    params = {name: {"kernel": jnp.ones(()), "bias": jnp.ones(())} for name in ("conv1", "local3")}
    update = paper_update(weight_decay=0.0, layer_decays={"local3": 1.0})
    gradients: Any = jax.tree.map(jnp.zeros_like, params)
    updates: Any = update.update(gradients, update.init(params), params, learning_rates=learning_rates(params, 0.5))[0]
    assert jax.tree.map(float, updates) == {"conv1": {"kernel": 0, "bias": 0}, "local3": {"kernel": -0.5, "bias": 0}}


def test_state_does_not_depend_on_decays():
    """Check that a run can be resumed with other weight decays."""
    params = {"conv1": {"kernel": jnp.ones(3), "bias": jnp.ones(3)}}
    optimizers = [paper_update(), paper_update(weight_decay=0.0), paper_update(layer_decays={"conv1": 0.1, "fc": 0.2})]
    assert len({jax.tree.structure(optimizer.init(params)) for optimizer in optimizers}) == 1
