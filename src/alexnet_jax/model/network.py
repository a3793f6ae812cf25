"""Definition of a network as a list of layers, with conversion to and from JSON."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_origin

from alexnet_jax.errors import UserError
from alexnet_jax.model import comparison_layers  # noqa: F401  (defines layers)
from alexnet_jax.model.layers import Conv, Layer, WeightedLayer


@dataclass(frozen=True)
class Network:
    """Network: a sequence of layers divided among towers.

    Attributes:
      name: name of the network, for commands and messages.
      layers: layers from input to output. The last one is weighted, with one unit per class.
      towers: number of towers.
      input_size: side of the square input image, pixels.

    Raises:
      UserError: if the features of a layer other than the last one cannot be divided equally among the towers, or among the
        groups of a grouped convolution. The last layer may have any number of classes: its last tower is padded.
    """

    name: str
    layers: tuple[Layer, ...]
    towers: int = 2
    input_size: int = 224

    def __post_init__(self) -> None:
        for layer in self.layers[:-1]:
            if not isinstance(layer, WeightedLayer):
                continue
            groups = layer.groups if isinstance(layer, Conv) else 1
            parts, name = self.towers * groups, layer.name or type(layer).__name__
            if rest := layer.features % parts:
                words = f"{self.towers} towers" + (f" with {groups} groups each" if groups > 1 else "")
                below = layer.features - rest
                choice = " or ".join(str(features) for features in (below, below + parts) if features)
                problem = f"{name} of {self.name} has {layer.features} features, which cannot be divided among {words}"
                raise UserError(f"{problem}: use {choice}")

    @property
    def named_layers(self) -> dict[str, Layer]:
        """Layers by name. Layers without weights are named after the weighted layer before them: conv1/relu, conv1/norm.

        Raises:
          ValueError: if two layers have the same name.
        """
        layers: dict[str, Layer] = {}
        prefix = ""
        for layer in self.layers:
            prefix = layer.name or prefix
            name = layer.name or f"{prefix}/{layer.short_name}"
            if name in layers:
                raise ValueError(f"network {self.name} has two layers named {name}; pass a different name to one of them")
            layers[name] = layer
        return layers

    @property
    def num_classes(self) -> int:
        """Number of units of the last layer."""
        last = self.layers[-1]
        assert isinstance(last, WeightedLayer)
        return last.features

    def with_num_classes(self, num_classes: int) -> "Network":
        """Return a copy of the network with `num_classes` units in the last layer."""
        return replace(self, layers=(*self.layers[:-1], self.layers[-1].clone(features=num_classes)))

    def up_to(self, layer: str) -> "Network":
        """Return a copy of the network that ends with a layer.

        Raises:
          UserError: if the network has no layer of this name.
        """
        names = list(self.named_layers)
        if layer not in names:
            raise UserError(f"{self.name} has no layer {layer!r}: choose one of {', '.join(names)}")
        return replace(self, layers=self.layers[: names.index(layer) + 1])

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON, for `from_json`. Two networks are equal if and only if their JSON is.

        Examples:
          >>> from alexnet_jax import TWO_TOWER
          >>> TWO_TOWER.to_json()["layers"][3]
          {'layer': 'MaxPool', 'size': 3, 'stride': 2}
          >>> Network.from_json(TWO_TOWER.to_json()) == TWO_TOWER
          True
        """
        layers = list(map(layer_to_json, self.layers))
        return {"name": self.name, "towers": self.towers, "input_size": self.input_size, "layers": layers}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Network":
        """Create a network from the return value of `to_json`.

        Raises:
          UserError: if this version does not support one of the layers or their fields.
        """
        try:
            layers = [layer_from_json(values) for values in record["layers"]]
            name, towers, input_size = record["name"], record["towers"], record["input_size"]
            if not isinstance(name, str) or not all(type(n) is int and 0 < n < 1 << 14 for n in (towers, input_size)):
                raise ValueError("invalid name, towers or input_size")
            if not layers or not isinstance(layers[-1], WeightedLayer):
                raise ValueError("the last layer has no weights")
            network = cls(name, tuple(layers), towers, input_size)
            _ = network.named_layers  # raises an error if two layers have the same name
            return network
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            reason = " ".join(str(error.args[0] if isinstance(error, KeyError) else error).split())[:200]
            problem = f"this version of alexnet-jax does not support the network ({reason})"
            raise UserError(f"{problem}: use the version that saved it") from error


def layer_to_json(layer: Layer) -> dict[str, Any]:
    """Return the class and the fields of a layer as JSON, for `layer_from_json`."""
    values = {field.name: getattr(layer, field.name) for field in fields(layer) if field.name != "parent"}
    if values["name"] is None:
        del values["name"]
    return {"layer": type(layer).__name__} | {
        key: list(value) if isinstance(value, tuple) else value for key, value in values.items()
    }


def layer_from_json(record: dict[str, Any]) -> Layer:
    """Create a layer from the return value of `layer_to_json`.

    Raises:
      UserError: if no imported module defines its class, or several files do.
      TypeError, KeyError, ValueError: if the class is not named, or a field is unknown or invalid.
    """
    values = dict(record)
    layer = values.pop("layer")
    layer_class: Any = Layer.registry.find(layer)
    hyperparameters: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    # Fields of layers outside of this package may have any values.
    for field in fields(layer_class) if layer_class.__module__.startswith("alexnet_jax.") else ():
        if field.name in hyperparameters and not _has_type(hyperparameters[field.name], field.type):
            raise TypeError(f"{field.name} of {layer} cannot be {str(hyperparameters[field.name])[:50]}")
        if field.name in hyperparameters and field.type is float:
            hyperparameters[field.name] = float(hyperparameters[field.name])
    return layer_class(**hyperparameters)


def _has_type(value: Any, annotation: Any) -> bool:
    """Return whether a hyperparameter has the annotated type, and is finite and, if it is a size, positive."""
    if annotation is int:
        return type(value) is int and 0 < value < 1 << 20
    if annotation is float:
        return type(value) in (int, float) and abs(value) < 1e9
    if get_origin(annotation) is Literal:
        return value in get_args(annotation)
    if get_origin(annotation) is tuple:
        return (
            isinstance(value, tuple)
            and len(value) == len(get_args(annotation))
            and all(type(item) in (int, float) and 0 <= item < 1e6 for item in value)
        )
    return isinstance(value, str)
