"""Networks made from networks: each function takes a list of layers and returns another, with nothing else changed.

What a layer is called does not change with what stands around it, so layers that stay keep their initial weights where their
shapes stay.
"""

from collections.abc import Callable
from dataclasses import replace

from alexnet_jax.errors import UserError
from alexnet_jax.model.comparison_layers import AbsTanh, ContrastNorm, Sigmoid, Tanh, Trim
from alexnet_jax.model.layers import Conv, Dropout, Layer, LocalResponseNorm, MaxPool, ReLU, SameMapNorm, Weighted
from alexnet_jax.model.network import Network

Ablation = Callable[[Network], Network]
"""From network to network."""

NONLINEARITIES: dict[str, type[Layer]] = {"relu": ReLU, "tanh": Tanh, "abs_tanh": AbsTanh, "sigmoid": Sigmoid}
_OWN = (*NONLINEARITIES.values(), LocalResponseNorm, SameMapNorm, ContrastNorm, Dropout)
"""What goes with the weighted layer before it."""


def without_normalization(network: Network) -> Network:
    """No response normalization, neither across maps nor within them (section 3.3; net 148 of the original code).

    Examples:
      >>> from alexnet_jax import TWO_TOWER
      >>> list(without_normalization(TWO_TOWER).named_layers)[:3]
      ['conv1', 'conv1/relu', 'conv1/pool']
    """
    return _each(network, lambda layer: None if isinstance(layer, LocalResponseNorm | SameMapNorm) else layer)


def without_overlap(network: Network) -> Network:
    """Pooling squares as large as their distance, which do not overlap (section 3.4; net 147 of the original code).

    Outputs are as many as before, as the paper says: a last row and column that fill no square are left out. The original lets
    the square overrun the edge, and has a pixel less of padding in conv2 and conv5 to come to the same 6 x 6 in the end.
    """
    made: list[Layer] = []
    for layer in network.layers:
        if isinstance(layer, MaxPool) and layer.size > layer.stride:
            made += [Trim(layer.stride), layer.clone(size=layer.stride)]
        else:
            made.append(layer)
    return replace(network, layers=tuple(made))


def without_dropout(network: Network) -> Network:
    """All units in training, too (section 4.2)."""
    return _each(network, lambda layer: None if isinstance(layer, Dropout) else layer)


def with_contrast_norm(network: Network) -> Network:
    """Normalization of contrast, the mean subtracted, in place of brightness (section 3.3 tells them apart)."""

    def exchanged(layer: Layer) -> Layer:
        if not isinstance(layer, LocalResponseNorm):
            return layer
        return ContrastNorm(size=layer.size, k=layer.k, alpha=layer.alpha, beta=layer.beta)

    return _each(network, exchanged)


def with_nonlinearity(name: str) -> Ablation:
    """Another nonlinearity instead of every ReLU: tanh, abs_tanh or sigmoid (section 3.1)."""
    return lambda network: _each(network, lambda layer: NONLINEARITIES[name]() if isinstance(layer, ReLU) else layer)


def without_layer(name: str) -> Ablation:
    """A layer in the middle taken out, with its nonlinearity, normalization and dropout (section 7).

    Its pooling stays, so that sizes do; and the layer after it reads all towers, if it did.

    Raises:
      UserError: when applied to a network that has no such layer in its middle.
    """

    def variant(network: Network) -> Network:
        middle = [layer.name for layer in network.layers if isinstance(layer, Weighted)][1:-1]
        if name not in middle:
            raise UserError(f"{network.name} has no layer {name!r} to do without; it has {', '.join(map(str, middle))}")
        made: list[Layer] = []
        inside, handed_on, since = False, None, set[str]()
        for layer in network.layers:
            if layer.name == name:
                inside, handed_on = True, layer.reads
                continue
            if isinstance(layer, Weighted):
                inside, since = False, set[str]()
                if handed_on == "all":
                    layer = layer.clone(reads="all")
                handed_on = None
            if not (inside and isinstance(layer, _OWN)):
                made.append(layer.clone(name=f"{name}_{layer.short}") if layer.short in since else layer)
                since.add(layer.short)
        return replace(network, layers=tuple(made))

    return variant


def one_tower(network: Network) -> Network:
    """The one-GPU network of section 3.2 (footnote 2): one tower, as wide as one of several, but for the last convolution and
    the dense layers, which keep the width of all."""
    last = [layer.name for layer in network.layers if isinstance(layer, Conv)][-1]

    def narrowed(layer: Layer) -> Layer:
        if isinstance(layer, Conv) and layer.name != last:
            return layer.clone(features=layer.features // network.towers, reads="own")
        return layer.clone(reads="own") if isinstance(layer, Weighted) else layer

    return replace(_each(network, narrowed), towers=1)


def without_communication(network: Network) -> Network:
    """Towers that do not see each other before the last layer. Theirs are fewer weights; net 150 of the original code, the
    nearest to it, made up for that with wider layers."""
    last = network.layers[-1]
    return _each(network, lambda layer: layer.clone(reads="own") if isinstance(layer, Weighted) and layer is not last else layer)


def _each(network: Network, change: Callable[[Layer], Layer | None]) -> Network:
    made = [change(layer) for layer in network.layers]
    return replace(network, layers=tuple(layer for layer in made if layer is not None))
