"""Layer-by-layer summary of a network: shapes, parameters, multiply-accumulates and communication."""

from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import jax
from flax import linen as nn

from alexnet_jax.console import count
from alexnet_jax.model.layers import Conv, WeightedLayer
from alexnet_jax.model.network import Network
from alexnet_jax.model.tower import stacked_towers


@dataclass(frozen=True)
class LayerSummary:
    """Summary of one layer over all towers, for one image.

    Attributes:
      name: name of the layer.
      shape: shape of its output without the batch: (height, width, channels) or (features,).
      per_tower: number of kernels or units in a tower; 0 for layers without weights.
      reads: "own" if the towers read their own activations, "all" if they read those of all towers.
      parameters: number of weights and biases.
      macs: number of multiply-accumulates of the forward pass.
      neurons: number of outputs; 0 for layers without weights.
      gathered_bytes: bytes of float32 activations that the towers receive from each other in the forward pass.
    """

    name: str
    shape: tuple[int, ...]
    per_tower: int
    reads: str
    parameters: int
    macs: int
    neurons: int
    gathered_bytes: int


def summarize(network: Network) -> list[LayerSummary]:
    """Return the summary of every layer, computed from shapes without running the network."""
    side, towers = network.input_size, network.towers
    init = partial(stacked_towers(network).init_with_output, capture_intermediates=True)
    variables = jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct((1, side, side, 3), "float32"))[1]
    params, intermediates = variables["params"], variables["intermediates"]
    rows: list[LayerSummary] = []
    previous: tuple[int, ...] = (side, side, 3)
    for name, layer in network.named_layers.items():
        _, _, *spatial, channels = intermediates[name]["__call__"][0].shape
        shape, weighted = (*spatial, channels * towers), isinstance(layer, WeightedLayer)
        uses_per_weight = prod(spatial) if isinstance(layer, Conv) else 1
        rows.append(
            LayerSummary(
                name=name,
                shape=shape,
                per_tower=channels if weighted else 0,
                reads=layer.reads,
                parameters=sum(leaf.size for leaf in jax.tree.leaves(params.get(name, {}))),
                macs=uses_per_weight * params[name]["kernel"].size if weighted else 0,
                neurons=prod(shape) if weighted else 0,
                gathered_bytes=4 * (towers - 1) * prod(previous) if layer.reads == "all" else 0,
            )
        )
        previous = shape
    return rows


def format_summary(network: Network, **console_options: Any) -> str:
    """Return Flax's table of the layers, shapes in one tower and parameters of all towers, and the totals of `summarize`.

    Further arguments are those of `rich.console.Console`, such as `width`.
    """
    tabulate: Any = nn.tabulate  # type: ignore[reportPrivateImportUsage]
    towers = stacked_towers(network)
    images = jax.numpy.zeros((1, network.input_size, network.input_size, 3))
    table = tabulate(towers, jax.random.key(0), depth=1, console_kwargs=console_options)(images)
    rows = summarize(network)
    parameters, neurons, macs, gathered_bytes = (
        sum(getattr(row, name) for row in rows) for name in ("parameters", "neurons", "macs", "gathered_bytes")
    )
    return (
        f"{table.rstrip()}\n{network.name}, {count(network.towers, 'tower')}, one image: {parameters:,} parameters, "
        f"{neurons:,} neurons, {macs:,} multiply-accumulates, {gathered_bytes:,} bytes gathered"
    )


def fits_input_size(network: Network) -> bool:
    """Return whether every layer has outputs for images of the network's input size, computed from shapes."""

    def outputs() -> Any:
        images = jax.numpy.zeros((1, network.input_size, network.input_size, 3))
        return stacked_towers(network).init_with_output(jax.random.key(0), images, capture_intermediates=True)

    try:
        return all(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(outputs)))
    except (ValueError, TypeError, ZeroDivisionError):  # raised by layers whose input is smaller than their window
        return False


def smallest_input_size(network: Network, largest: int) -> int | None:
    """Return the smallest input size, from 1 to `largest`, that the network's layers fit; None if there is none."""
    sizes = range(1, largest + 1)
    index = bisect_left(sizes, True, key=lambda size: fits_input_size(replace(network, input_size=size)))
    return sizes[index] if index < largest else None
