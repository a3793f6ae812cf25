"""Timing of the individual layers of a training step, with all towers on one device."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from alexnet_jax.model.alexnet import TWO_TOWER
from alexnet_jax.model.layers import TOWER
from alexnet_jax.model.network import Network
from alexnet_jax.model.tower import rewrite_pooling
from alexnet_jax.parallel.mesh import choose_mesh
from alexnet_jax.parallel.runtime import compiler_options, configure_cpu
from alexnet_jax.training.optimizer import paper_update
from alexnet_jax.training.step import constant_hparams, initial_state

CALLS = 9
"""Number of timed calls per function."""


def layer_times(batch: int, network: Network = TWO_TOWER) -> list[dict[str, Any]]:
    """Time the forward and backward pass of every layer and the parameter update; print one line for each.

    The gradient with respect to the images is not computed, because training does not need it.

    Args:
      batch: batch size.
      network: network to time.

    Returns:
      Dicts with the keys "layer", "forward_ms" and "backward_ms", in milliseconds. "backward_ms" is the time of both passes minus
      that of the forward pass.
    """
    configure_cpu()
    optimizer = paper_update()
    state = initial_state(network, choose_mesh(network, "single", 1), optimizer, 0)
    key = jax.random.key(0)
    x = jax.random.normal(key, (batch, network.input_size, network.input_size, 3))
    rows: list[dict[str, Any]] = []
    for name, layer in rewrite_pooling(network).named_layers.items():
        if layer.reads == "all":
            x = jnp.concatenate(list(x), axis=-1)
        tower_axis = 0 if rows and layer.reads == "own" else None

        def forward(params: Any, x: jax.Array, layer=layer, tower_axis=tower_axis) -> jax.Array:
            def one_tower(params: Any, x: jax.Array) -> Any:
                return layer.apply({"params": params}, x, rngs={"dropout": key})

            return jax.vmap(one_tower, (0, tower_axis), axis_name=TOWER, axis_size=network.towers)(params, x)

        def forward_and_backward(params: Any, x: jax.Array, g: jax.Array, forward=forward, first=not rows) -> Any:
            y, vjp = jax.vjp(partial(forward, x=x), params) if first else jax.vjp(forward, params, x)
            return y, vjp(g)

        params = state.params.get(name, {})
        y, ms = timed(forward, params, x)
        _, ms_both = timed(forward_and_backward, params, x, y)
        rows.append({"layer": name, "forward_ms": round(ms, 1), "backward_ms": round(max(0.0, ms_both - ms), 1)})
        print("{layer:12} forward {forward_ms:6.1f} ms   backward {backward_ms:6.1f} ms".format(**rows[-1]), flush=True)
        x = y

    def update(params: Any, opt_state: Any) -> Any:
        rates = constant_hparams(state, 1e-4).learning_rates
        return optimizer.update(params, opt_state, params, learning_rates=rates)[0]

    _, ms = timed(update, state.params, state.opt_state)
    rows.append({"layer": "update", "forward_ms": round(ms, 1), "backward_ms": 0.0})
    print("{layer:12} {forward_ms:14.1f} ms".format(**rows[-1]), flush=True)
    return rows


def timed(function: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """Jit a function, and return its result and the minimum time over `CALLS` calls, in milliseconds."""
    jitted = jax.jit(function, compiler_options=compiler_options(jax.default_backend()))
    result = jax.block_until_ready(jitted(*args))
    seconds: list[float] = []
    for _ in range(CALLS):
        start = time.perf_counter()
        jax.block_until_ready(jitted(*args))
        seconds.append(time.perf_counter() - start)
    return result, 1e3 * min(seconds)
