"""What a network is: a list of layers that towers share."""

from dataclasses import dataclass, fields, replace
from typing import Any

from alexnet_jax.errors import UserError
from alexnet_jax.model import comparison_layers, layers
from alexnet_jax.model.layers import Layer, Weighted


@dataclass(frozen=True)
class Network:
    """A network: its layers in order, how many towers share them, and the side of the square image it takes, pixels."""

    name: str
    layers: tuple[Layer, ...]
    towers: int = 2
    input_size: int = 224

    @property
    def named_layers(self) -> dict[str, Layer]:
        """Layers by name; those without weights are called after the one before that has some: conv1/relu, conv1/norm."""
        named: dict[str, Layer] = {}
        weighted = ""
        for layer in self.layers:
            weighted = layer.name or weighted
            name = layer.name or f"{weighted}/{layer.short}"
            if name in named:
                raise ValueError(f"network {self.name} has two layers called {name}: name one of them")
            named[name] = layer
        return named

    @property
    def num_classes(self) -> int:
        """Units of the last layer."""
        last = self.layers[-1]
        assert isinstance(last, Weighted)
        return last.features

    def with_num_classes(self, num_classes: int) -> "Network":
        """The same network with another number of outputs."""
        return replace(self, layers=(*self.layers[:-1], self.layers[-1].clone(features=num_classes)))

    def to_json(self) -> dict[str, Any]:
        """All of it, for `from_json`: what makes two networks the same or not.

        Examples:
          >>> from alexnet_jax import TWO_TOWER
          >>> TWO_TOWER.to_json()["layers"][3]
          {'layer': 'MaxPool', 'size': 3, 'stride': 2}
          >>> Network.from_json(TWO_TOWER.to_json()) == TWO_TOWER
          True
        """
        described = [{"layer": type(layer).__name__, **_hyperparameters(layer)} for layer in self.layers]
        return {"name": self.name, "towers": self.towers, "input_size": self.input_size, "layers": described}

    @classmethod
    def from_json(cls, described: dict[str, Any]) -> "Network":
        """The network that `to_json` has described.

        Raises:
          UserError: if it has layers that this version does not know.
        """
        try:
            made = [_layer(**values) for values in described["layers"]]
            return cls(described["name"], tuple(made), described["towers"], described["input_size"])
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"a network of another version of alexnet-jax cannot be read: {error}") from error


def _hyperparameters(layer: Layer) -> dict[str, Any]:
    values = {field.name: getattr(layer, field.name) for field in fields(layer) if field.name != "parent"}
    if values["name"] is None:
        del values["name"]
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _layer(layer: str, **values: Any) -> Layer:
    kind: Any = getattr(layers, layer, None) or getattr(comparison_layers, layer)
    if not issubclass(kind, Layer):
        raise TypeError(f"{layer} is no layer")
    settings: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return kind(**settings)
