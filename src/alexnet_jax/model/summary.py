"""Layer-by-layer summary of a network: shapes, parameters, multiply-accumulates and communication."""

from dataclasses import dataclass
from math import prod

import jax
from rich.table import Table

from alexnet_jax.model import tower
from alexnet_jax.model.layers import TOWER, Conv, WeightedLayer
from alexnet_jax.model.network import Network


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

    def init_and_apply(key: jax.Array, images: jax.Array) -> tuple[tower.Params, dict[str, jax.Array]]:
        params = tower.init(network, key)
        return params, dict(tower.activations(network, params, images))

    params, outputs = jax.eval_shape(
        jax.vmap(init_and_apply, in_axes=None, axis_name=TOWER, axis_size=towers),
        jax.eval_shape(jax.random.key, 0),
        jax.ShapeDtypeStruct((1, side, side, 3), "float32"),
    )
    rows: list[LayerSummary] = []
    previous: tuple[int, ...] = (side, side, 3)
    for name, layer in network.named_layers.items():
        _, _, *spatial, channels = outputs[name].shape
        shape = (*spatial, channels * towers)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(params.get(name, {})))
        neurons = prod(shape) if isinstance(layer, WeightedLayer) else 0
        macs = 0
        if isinstance(layer, WeightedLayer):
            kernel = params[name]["kernel"]
            macs = kernel.size * (prod(spatial) if isinstance(layer, Conv) else 1)
        rows.append(
            LayerSummary(
                name=name,
                shape=shape,
                per_tower=channels if isinstance(layer, WeightedLayer) else 0,
                reads=layer.reads,
                parameters=parameters,
                macs=macs,
                neurons=neurons,
                gathered_bytes=4 * (towers - 1) * prod(previous) if layer.reads == "all" else 0,
            )
        )
        previous = shape
    return rows


def summary_table(network: Network) -> Table:
    """Return the result of `summarize` as a table for the terminal, with totals."""
    rows = summarize(network)
    table = Table(title=f"{network.name}: {network.towers} tower(s)", show_footer=True)
    totals = [sum(getattr(row, name) for row in rows) for name in ("parameters", "macs", "neurons", "gathered_bytes")]
    footers = ["total", "", "", "", *(f"{total:,}" for total in totals)]
    headers = ["layer", "output", "kernels per tower", "reads", "parameters", "MACs", "neurons", "bytes gathered"]
    for header, footer in zip(headers, footers, strict=True):
        table.add_column(header, footer, justify="left" if header in ("layer", "output", "reads") else "right", no_wrap=True)
    for row in rows:
        numbers = (row.parameters, row.macs, row.neurons, row.gathered_bytes)
        reads = {"own": "own tower", "all": "both towers" if network.towers == 2 else "all"}[row.reads] if row.per_tower else ""
        kernels = f"{row.per_tower:,}" if row.per_tower else ""
        table.add_row(row.name, "×".join(map(str, row.shape)), kernels, reads, *(f"{n:,}" if n else "" for n in numbers))
    return table
