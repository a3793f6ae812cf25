"""Networks against tables written by hand, and defaults of the layers."""

import dataclasses

import pytest

from alexnet_jax import NETWORKS
from alexnet_jax.model import comparison_layers, layers
from alexnet_jax.model.cifar import CIFAR_NETWORKS
from tests.model.published_tables import PUBLISHED

COLUMNS = {
    "Conv": ("name", "features", "kernel", "stride", "padding", "reads", "std", "bias"),
    "GroupedConv": ("name", "features", "kernel", "stride", "padding", "reads", "std", "bias", "groups"),
    "LocallyConnected": ("name", "features", "kernel", "reads", "std", "bias"),
    "Dense": ("name", "features", "reads", "std", "bias"),
    "MaxPool": ("size", "stride"),
    "AvgPool": ("size", "stride"),
    "Dropout": ("keep",),
    "InvertedDropout": ("keep",),
    "Standardize": ("name", "deviation"),
    "ReLU": (),
    "SameMapNorm": ("size", "k", "alpha", "beta"),
    "LocalResponseNorm": ("size", "k", "alpha", "beta"),
}


def text(value):
    """Return numbers with six digits, and tuples as (1,2)."""
    if isinstance(value, tuple):
        return "(" + ",".join(map(text, value)) + ")"
    return f"{value:g}" if isinstance(value, int | float) else value


def parse(table):
    rows = []
    for line in filter(str.strip, table.splitlines()):
        kind, *cells = line.split()
        kind = "LocalResponseNorm" if kind == "Norm" else kind
        cells = [cell for cell in cells if cell not in ("size", "k", "alpha", "beta", "groups")]
        rows.append((kind, *(text(float(cell)) if cell.replace(".", "").isdecimal() else cell for cell in cells)))
    return rows


def test_all_networks_have_a_table():
    assert PUBLISHED.keys() == NETWORKS.keys() | CIFAR_NETWORKS.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_network_equals_its_table(name):
    network = (dict(NETWORKS) | CIFAR_NETWORKS)[name]
    towers, input_size, table = PUBLISHED[name]
    assert (network.towers, network.input_size) == (towers, input_size)
    rows = []
    for layer in network.layers:
        kind = type(layer).__name__
        rows.append((kind, *(text(getattr(layer, column)) for column in COLUMNS[kind])))
    assert rows == parse(table)


def test_columns_are_all_fields():
    used = {type(layer) for network in (*NETWORKS.values(), *CIFAR_NETWORKS.values()) for layer in network.layers}
    for layer_class in used:
        fields = {field.name for field in dataclasses.fields(layer_class) if field.init} - {"parent"}
        missing = fields - set(COLUMNS[layer_class.__name__])
        assert missing <= {"name"}, f"{layer_class.__name__} has fields that no table states"


WEIGHTED = {"reads": "own", "std": 0.01, "bias": 0.0}
NORM = {"size": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75}  # section 3.3
DEFAULTS = {
    layers.Conv: WEIGHTED | {"kernel": 3, "stride": 1, "padding": (0, 0)},
    layers.Dense: WEIGHTED,
    layers.LocalResponseNorm: NORM,
    layers.SameMapNorm: NORM | {"k": 1.0, "alpha": pytest.approx(4e-5)},
    layers.MaxPool: {"size": 3, "stride": 2},
    layers.Dropout: {"keep": 0.5},
    comparison_layers.GroupedConv: WEIGHTED | {"kernel": 3, "stride": 1, "padding": (0, 0), "groups": 2},
    comparison_layers.LocallyConnected: WEIGHTED | {"kernel": 3},
    comparison_layers.Standardize: {"deviation": (1.0, 1.0, 1.0)},
    comparison_layers.ContrastNorm: NORM,
    comparison_layers.Trim: {"multiple": 2},
    comparison_layers.AvgPool: {"size": 3, "stride": 2},
    comparison_layers.InvertedDropout: {"keep": 0.5},
}


@pytest.mark.parametrize("layer_class", DEFAULTS, ids=lambda layer_class: layer_class.__name__)
def test_defaults_of_layers(layer_class):
    fields = dataclasses.fields(layer_class)
    defaults = {field.name: field.default for field in fields if field.name not in ("features", "parent", "name")}
    assert defaults == DEFAULTS[layer_class]
