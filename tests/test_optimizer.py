import jax
import jax.numpy as jnp
import numpy as np
import optax

from alexnet_jax.optimizer import paper_update, stepwise_rate


def test_twenty_steps_equal_the_papers_two_lines(rng):
    rates = np.where(np.arange(20) < 8, 0.01, np.where(np.arange(20) < 14, 0.001, 0.02))
    w = {"fc": {"kernel": rng.normal(size=(5, 3)), "bias": rng.normal(size=3)}}
    gradients = [jax.tree.map(lambda x: rng.normal(size=x.shape), w) for _ in range(20)]

    to_float32 = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)  # noqa: E731
    update = paper_update(lambda step: jnp.asarray(rates, jnp.float32)[step], bias_rate=2.0)
    params = to_float32(w)
    state = update.init(params)
    for g in gradients:
        updates, state = update.update(to_float32(g), state, params)
        params = optax.apply_updates(params, updates)

    v = jax.tree.map(np.zeros_like, w)
    for rate, g in zip(rates, gradients, strict=True):
        for name, epsilon, decay in (("kernel", rate, 0.0005), ("bias", 2 * rate, 0.0)):
            v["fc"][name] = 0.9 * v["fc"][name] - decay * epsilon * w["fc"][name] - epsilon * g["fc"][name]
            w["fc"][name] = w["fc"][name] + v["fc"][name]

    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-6), params, w)


def test_the_rate_falls_after_the_epochs_named():
    rate = stepwise_rate(0.01, (2, 5), steps_per_epoch=10)
    np.testing.assert_allclose(
        np.array([rate(step) for step in (0, 19, 20, 49, 50)]), [0.01, 0.01, 0.001, 0.001, 0.0001], rtol=1e-6
    )
