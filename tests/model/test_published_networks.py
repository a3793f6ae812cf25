"""Networks against tables written by hand from the paper, the original code's layer files, Caffe and torchvision.

A row states everything a layer is defined by. Values that the sources print as a quotient (alpha / size) are written out.
"""

import dataclasses

import pytest

from alexnet_jax import NETWORKS
from alexnet_jax.model import comparison_layers, layers
from alexnet_jax.model.cifar import CIFAR_NETWORKS

# Class, name, features, kernel, stride, padding, reads, standard deviation of the initial weights, initial bias.
PAPER = """
Conv   conv1   96  11  4  (0,3)  own  0.01  0
ReLU
Norm   size 5  k 2  alpha 0.0001  beta 0.75
MaxPool 3 2
Conv   conv2  256   5  1  (2,2)  own  0.01  1
ReLU
Norm   size 5  k 2  alpha 0.0001  beta 0.75
MaxPool 3 2
Conv   conv3  384   3  1  (1,1)  all  0.01  0
ReLU
Conv   conv4  384   3  1  (1,1)  own  0.01  1
ReLU
Conv   conv5  256   3  1  (1,1)  own  0.01  1
ReLU
MaxPool 3 2
Dense  fc6   4096  all  0.01  1
ReLU
Dropout 0.5
Dense  fc7   4096  all  0.01  1
ReLU
Dropout 0.5
Dense  fc8   1000  all  0.01  0
"""

ONE_GPU = """
Conv   conv1   48  11  4  (0,3)  own  0.01  0
ReLU
Norm   size 5  k 2  alpha 0.0001  beta 0.75
MaxPool 3 2
Conv   conv2  128   5  1  (2,2)  own  0.01  1
ReLU
Norm   size 5  k 2  alpha 0.0001  beta 0.75
MaxPool 3 2
Conv   conv3  192   3  1  (1,1)  own  0.01  0
ReLU
Conv   conv4  192   3  1  (1,1)  own  0.01  1
ReLU
Conv   conv5  256   3  1  (1,1)  own  0.01  1
ReLU
MaxPool 3 2
Dense  fc6   4096  own  0.01  1
ReLU
Dropout 0.5
Dense  fc7   4096  own  0.01  1
ReLU
Dropout 0.5
Dense  fc8   1000  own  0.01  0
"""

SOURCE_145_CONVOLUTIONS = """
Conv   conv1   96  11  4  (0,3)  own  0.01  0
Norm   size 5  k 2  alpha 0.00002  beta 0.75
MaxPool 3 2
ReLU
Conv   conv2  256   5  1  (2,2)  own  0.01  1
ReLU
Norm   size 5  k 2  alpha 0.00002  beta 0.75
SameMapNorm size 5  k 1  alpha 0.00004  beta 0.75
MaxPool 3 2
Conv   conv3  384   3  1  (1,1)  all  0.03  0
ReLU
Conv   conv4  384   3  1  (1,1)  own  0.03  1
ReLU
Conv   conv5  256   3  1  (1,1)  own  0.03  1
MaxPool 3 2
ReLU
"""

SIXTH_CONVOLUTION = """
Conv   conv6  256   3  1  (1,1)  all  0.03  1
ReLU
"""

DENSE = """
Dense  fc6   4096  all  0.01  1
ReLU
Dropout 0.5
Dense  fc7   4096  all  0.01  1
ReLU
Dropout 0.5
"""

TWO_COLUMNS = """
Conv   conv1   96  11  4  (0,3)  own  0.01  0
Norm   size 5  k 2  alpha 0.00002  beta 0.75
MaxPool 3 2
ReLU
Conv   conv2  320   5  1  (2,2)  own  0.01  1
ReLU
Norm   size 5  k 2  alpha 0.00002  beta 0.75
SameMapNorm size 5  k 1  alpha 0.00004  beta 0.75
MaxPool 3 2
Conv   conv3  384   3  1  (1,1)  own  0.03  0
ReLU
Conv   conv4  384   3  1  (1,1)  own  0.03  1
ReLU
Conv   conv5  256   3  1  (1,1)  own  0.03  1
MaxPool 3 2
ReLU
Dense  fc6   8192  own  0.01  1
ReLU
Dropout 0.5
Dense  fc7   4096  own  0.01  1
ReLU
Dropout 0.5
Dense  fc8   1000  all  0.01  0
"""

BVLC_ALEXNET = """
Conv         conv1   96  11  4  (0,0)  own  0.01  0
ReLU
Norm   size 5  k 1  alpha 0.00002  beta 0.75
MaxPool 3 2
GroupedConv  conv2  256   5  1  (2,2)  own  0.01  0.1  groups 2
ReLU
Norm   size 5  k 1  alpha 0.00002  beta 0.75
MaxPool 3 2
Conv         conv3  384   3  1  (1,1)  own  0.01  0
ReLU
GroupedConv  conv4  384   3  1  (1,1)  own  0.01  0.1  groups 2
ReLU
GroupedConv  conv5  256   3  1  (1,1)  own  0.01  0.1  groups 2
ReLU
MaxPool 3 2
Dense  fc6   4096  own  0.005  0.1
ReLU
InvertedDropout 0.5
Dense  fc7   4096  own  0.005  0.1
ReLU
InvertedDropout 0.5
Dense  fc8   1000  own  0.01  0
"""

CAFFENET = """
Conv         conv1   96  11  4  (0,0)  own  0.01  0
ReLU
MaxPool 3 2
Norm   size 5  k 1  alpha 0.00002  beta 0.75
GroupedConv  conv2  256   5  1  (2,2)  own  0.01  1  groups 2
ReLU
MaxPool 3 2
Norm   size 5  k 1  alpha 0.00002  beta 0.75
Conv         conv3  384   3  1  (1,1)  own  0.01  0
ReLU
GroupedConv  conv4  384   3  1  (1,1)  own  0.01  1  groups 2
ReLU
GroupedConv  conv5  256   3  1  (1,1)  own  0.01  1  groups 2
ReLU
MaxPool 3 2
Dense  fc6   4096  own  0.005  1
ReLU
InvertedDropout 0.5
Dense  fc7   4096  own  0.005  1
ReLU
InvertedDropout 0.5
Dense  fc8   1000  own  0.01  0
"""

# PyTorch draws weights uniformly between ±1 / sqrt(inputs): the standard deviations are 1 / sqrt(3 inputs).
TORCHVISION = """
Standardize standardize (58.395,57.12,57.375)
Conv   conv1   64  11  4  (2,2)  own  0.0303  0
ReLU
MaxPool 3 2
Conv   conv2  192   5  1  (2,2)  own  0.0144  0
ReLU
MaxPool 3 2
Conv   conv3  384   3  1  (1,1)  own  0.0139  0
ReLU
Conv   conv4  256   3  1  (1,1)  own  0.0098  0
ReLU
Conv   conv5  256   3  1  (1,1)  own  0.012  0
ReLU
MaxPool 3 2
InvertedDropout 0.5
Dense  fc6   4096  own  0.006  0
ReLU
InvertedDropout 0.5
Dense  fc7   4096  own  0.009  0
ReLU
Dense  fc8   1000  own  0.009  0
"""

QUICKSTART = """
Conv   conv1   32  11  4  (0,3)  own  0.01  0
ReLU
Norm   size 5  k 2  alpha 0.0001  beta 0.75
MaxPool 3 2
Conv   conv2   64   5  1  (2,2)  own  0.05  0
ReLU
Norm   size 5  k 2  alpha 0.0001  beta 0.75
MaxPool 3 2
Conv   conv3   96   3  1  (1,1)  all  0.06  0
ReLU
Conv   conv4   96   3  1  (1,1)  own  0.07  0
ReLU
Conv   conv5   64   3  1  (1,1)  own  0.07  0
ReLU
MaxPool 3 2
Dense  fc6    256  all  0.05  0
ReLU
Dropout 0.8
Dense  fc7    256  all  0.09  0
ReLU
Dropout 0.8
Dense  fc8     10  all  0.01  0
"""

CIFAR_NORM = """
Conv   conv1   64   5  1  (2,2)  own  0.0001  0
ReLU
MaxPool 3 2
Norm   size 9  k 1  alpha 0.000111111  beta 0.75
Conv   conv2   64   5  1  (2,2)  own  0.01  0
ReLU
Norm   size 9  k 1  alpha 0.000111111  beta 0.75
MaxPool 3 2
LocallyConnected  local3  64  3  own  0.04  0
ReLU
LocallyConnected  local4  32  3  own  0.04  0
ReLU
Dense  fc10    10  own  0.01  0
"""

CIFAR_PLAIN = """
Conv   conv1   64   5  1  (2,2)  own  0.0001  0
ReLU
MaxPool 3 2
Conv   conv2   64   5  1  (2,2)  own  0.01  0
ReLU
MaxPool 3 2
LocallyConnected  local3  64  3  own  0.04  0
ReLU
LocallyConnected  local4  32  3  own  0.04  0
ReLU
Dense  fc10    10  own  0.01  0
"""

CIFAR_19PCT = """
Conv   conv1   32   5  1  (2,2)  own  0.0001  0
MaxPool 3 2
ReLU
Conv   conv2   32   5  1  (2,2)  own  0.01  0
ReLU
AvgPool 3 2
Conv   conv3   64   5  1  (2,2)  own  0.01  0
ReLU
AvgPool 3 2
Dense  fc10    10  own  0.01  0
"""

CIFAR_18PCT = """
Conv   conv1   32   5  1  (2,2)  own  0.0001  0
MaxPool 3 2
ReLU
SameMapNorm size 3  k 1  alpha 0.00000555556  beta 0.75
Conv   conv2   32   5  1  (2,2)  own  0.01  0
ReLU
AvgPool 3 2
SameMapNorm size 3  k 1  alpha 0.00000555556  beta 0.75
Conv   conv3   64   5  1  (2,2)  own  0.01  0
ReLU
AvgPool 3 2
Dense  fc10    10  own  0.01  0
"""

CIFAR_80SEC = """
Conv   conv1   32   5  1  (2,2)  own  0.0001  0
MaxPool 3 2
ReLU
Conv   conv2   32   5  1  (2,2)  own  0.01  0
ReLU
AvgPool 3 2
Conv   conv3   64   5  1  (2,2)  own  0.01  0
ReLU
AvgPool 3 2
Dense  fc64    64  own  0.1  0
ReLU
Dense  fc10    10  own  0.1  0
"""

# Towers, side of the input, layers.
PUBLISHED = {
    "two_tower": (2, 224, PAPER),
    "one_gpu": (1, 224, ONE_GPU),
    "sixth_conv": (2, 224, PAPER.replace("Dense  fc6", "Conv conv6 256 3 1 (1,1) all 0.01 1\nReLU\nDense  fc6")),
    "source_145": (2, 224, SOURCE_145_CONVOLUTIONS + DENSE + "Dense fc8 1000 all 0.01 0"),
    "source_146": (2, 224, SOURCE_145_CONVOLUTIONS + SIXTH_CONVOLUTION + DENSE + "Dense fc8 1000 all 0.01 0"),
    "fall2009": (2, 224, SOURCE_145_CONVOLUTIONS + SIXTH_CONVOLUTION + DENSE + "Dense fc8 10184 all 0.01 0"),
    "fall2011": (
        2,
        224,
        SOURCE_145_CONVOLUTIONS + SIXTH_CONVOLUTION + DENSE + "Dense bottleneck 2048 all 0.01 0\nDense fc8 21843 all 0.01 0",
    ),
    "two_columns": (2, 224, TWO_COLUMNS),
    "bvlc_alexnet": (1, 227, BVLC_ALEXNET),
    "caffenet": (1, 227, CAFFENET),
    "torchvision_alexnet": (1, 224, TORCHVISION),
    "quickstart": (2, 112, QUICKSTART),
    "cifar_norm": (1, 24, CIFAR_NORM),
    "cifar_plain": (1, 24, CIFAR_PLAIN),
    "cifar_19pct": (1, 32, CIFAR_19PCT),
    "cifar_18pct": (1, 32, CIFAR_18PCT),
    "cifar_80sec": (1, 32, CIFAR_80SEC),
}

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
