import jax
import jax.numpy as jnp
import numpy as np
import optax

from alexnet_jax.training.optimizer import learning_rates, paper_update


def test_twenty_steps_equal_the_papers_two_lines(rng):
    """With cuts on the way, a layer that is frozen, and one whose weights decay faster."""
    rate_of = np.where(np.arange(20) < 8, 0.01, np.where(np.arange(20) < 14, 0.001, 0.02))
    own_of = np.where(np.arange(20) < 10, 0.003, 0.0)
    shapes = {"conv1": {"kernel": (2, 3), "bias": (3,)}, "fc": {"kernel": (5, 3), "bias": (3,)}}
    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    w = jax.tree.map(lambda shape: rng.normal(size=shape), shapes, is_leaf=is_shape)
    gradients = [jax.tree.map(lambda x: rng.normal(size=x.shape), w) for _ in range(20)]

    to_float32 = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)  # noqa: E731
    update = paper_update(layer_decays={"fc": 0.004})
    params = to_float32(w)
    state = update.init(params)
    for g, rate, own in zip(gradients, rate_of, own_of, strict=True):
        of_parameters = learning_rates(params, rate, 2 * rate, {"conv1": (own, 4 * own)})
        updates, state = update.update(to_float32(g), state, params, learning_rates=of_parameters)
        params = optax.apply_updates(params, updates)

    v = jax.tree.map(np.zeros_like, w)
    for rate, own, g in zip(rate_of, own_of, gradients, strict=True):
        for layer, weights, biases, of_layer in (("conv1", own, 4 * own, 0.0005), ("fc", rate, 2 * rate, 0.004)):
            for name, epsilon, decay in (("kernel", weights, of_layer), ("bias", biases, 0.0)):
                v[layer][name] = 0.9 * v[layer][name] - decay * epsilon * w[layer][name] - epsilon * g[layer][name]
                w[layer][name] = w[layer][name] + v[layer][name]

    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-6), params, w)
