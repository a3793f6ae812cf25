"""Ablations: functions that return a network with one component changed or removed.

Layers keep their names. Initial weights depend on the name and the shape of a layer, so layers that an ablation leaves unchanged
start with the same weights as in the original network.
"""

from collections.abc import Callable
from dataclasses import replace

from alexnet_jax.errors import UserError
from alexnet_jax.model.comparison_layers import AbsTanh, ContrastNorm, Sigmoid, Tanh, Trim
from alexnet_jax.model.layers import Conv, Dropout, Layer, LocalResponseNorm, MaxPool, ReLU, SameMapNorm, WeightedLayer
from alexnet_jax.model.network import Network

Ablation = Callable[[Network], Network]
"""Function that returns a modified network."""

NONLINEARITIES: dict[str, type[Layer]] = {"relu": ReLU, "tanh": Tanh, "abs_tanh": AbsTanh, "sigmoid": Sigmoid}
"""Nonlinearities by name."""
_REMOVED_TOGETHER = (*NONLINEARITIES.values(), LocalResponseNorm, SameMapNorm, ContrastNorm, Dropout)
"""Layers that are removed together with the weighted layer before them."""


def without_normalization(network: Network) -> Network:
    """Remove response normalization, both across maps and within them (section 3.3; net 148 of the original code).

    Examples:
      >>> from alexnet_jax import TWO_TOWER
      >>> list(without_normalization(TWO_TOWER).named_layers)[:3]
      ['conv1', 'conv1/relu', 'conv1/pool']
    """
    return _map_layers(network, lambda layer: None if isinstance(layer, LocalResponseNorm | SameMapNorm) else layer)


def without_overlap(network: Network) -> Network:
    """Replace overlapping pooling with windows as large as the stride (section 3.4; net 147 of the original code).

    The output sizes stay the same, as the paper says: a last row or column that does not fill a window is dropped. The original
    code lets the window extend past the edge instead, and pads conv2 and conv5 by one pixel less to reach the same 6 x 6 output.
    """
    layers: list[Layer] = []
    for layer in network.layers:
        if isinstance(layer, MaxPool) and layer.size > layer.stride:
            layers += [Trim(layer.stride), layer.clone(size=layer.stride)]
        else:
            layers.append(layer)
    return replace(network, layers=tuple(layers))


def without_dropout(network: Network) -> Network:
    """Remove dropout (section 4.2)."""
    return _map_layers(network, lambda layer: None if isinstance(layer, Dropout) else layer)


def with_contrast_norm(network: Network) -> Network:
    """Replace response normalization (of brightness) with contrast normalization, which subtracts the mean (section 3.3)."""

    def to_contrast_norm(layer: Layer) -> Layer:
        if not isinstance(layer, LocalResponseNorm):
            return layer
        return ContrastNorm(size=layer.size, k=layer.k, alpha=layer.alpha, beta=layer.beta)

    return _map_layers(network, to_contrast_norm)


def with_nonlinearity(name: str) -> Ablation:
    """Return the ablation that replaces every ReLU (section 3.1).

    Args:
      name: key of `NONLINEARITIES`: "tanh", "abs_tanh" or "sigmoid".
    """
    return lambda network: _map_layers(network, lambda layer: NONLINEARITIES[name]() if isinstance(layer, ReLU) else layer)


def without_layer(name: str) -> Ablation:
    """Return the ablation that removes an inner weighted layer, with its nonlinearity, normalization and dropout (section 7).

    Its pooling remains, so that the sizes of later layers do not change. If the layer read all towers, the next weighted layer
    does so instead.

    Args:
      name: name of the layer; neither the first nor the last weighted one.

    Raises:
      UserError: when the ablation is applied to a network without such an inner layer.
    """

    def remove(network: Network) -> Network:
        inner = [layer.name for layer in network.layers if isinstance(layer, WeightedLayer)][1:-1]
        if name not in inner:
            raise UserError(f"{network.name} has no inner layer {name!r} to remove; choose one of {', '.join(map(str, inner))}")
        layers: list[Layer] = []
        removing, removed_reads, short_names = False, None, set[str]()
        for layer in network.layers:
            if layer.name == name:
                removing, removed_reads = True, layer.reads
                continue
            if isinstance(layer, WeightedLayer):
                removing, short_names = False, set[str]()
                if removed_reads == "all":
                    layer = layer.clone(reads="all")
                removed_reads = None
            if not (removing and isinstance(layer, _REMOVED_TOGETHER)):
                # The pooling of the removed layer may follow an earlier pooling, which must not have the same name.
                layers.append(layer.clone(name=f"{name}_{layer.short_name}") if layer.short_name in short_names else layer)
                short_names.add(layer.short_name)
        return replace(network, layers=tuple(layers))

    return remove


def one_tower(network: Network) -> Network:
    """Return the one-GPU network of section 3.2 (footnote 2).

    The result is a single tower with the width of one of the original towers, except that the last convolution and the dense
    layers keep the width of all towers.
    """
    last = [layer.name for layer in network.layers if isinstance(layer, Conv)][-1]

    def narrow(layer: Layer) -> Layer:
        if isinstance(layer, Conv) and layer.name != last:
            return layer.clone(features=layer.features // network.towers, reads="own")
        return layer.clone(reads="own") if isinstance(layer, WeightedLayer) else layer

    return _map_layers(replace(network, towers=1), narrow)


def without_communication(network: Network) -> Network:
    """Remove the communication between towers in all layers but the last.

    The result has fewer weights than `network`. The nearest network of the original code, net 150, compensates with wider layers.
    """
    last = network.layers[-1]

    def read_own_tower(layer: Layer) -> Layer:
        return layer.clone(reads="own") if isinstance(layer, WeightedLayer) and layer is not last else layer

    return _map_layers(network, read_own_tower)


def _map_layers(network: Network, change: Callable[[Layer], Layer | None]) -> Network:
    """Apply `change` to every layer, and drop the layers for which it returns None."""
    changed = [change(layer) for layer in network.layers]
    return replace(network, layers=tuple(layer for layer in changed if layer is not None))
