"""Argument specifications shared by the tests, the compiler check and the benchmarks."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Spec:
    """Arguments of a call `op(x, **settings)`.

    Attributes:
      op: name of the operation.
      shape: shape of x.
      settings: keyword arguments; omitted ones have their default values.
    """

    op: str
    shape: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        settings = ",".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.op}-{'x'.join(map(str, self.shape))}{'-' if settings else ''}{settings}"


_NORMS: tuple[dict[str, Any], ...] = (
    {},
    {"size": 3, "k": 1.0, "alpha": 0.01},
    {"size": 9, "k": 1.0, "alpha": 0.001, "beta": 0.5},
    {"size": 4, "k": 1.5, "alpha": 0.1, "beta": 0.6},  # an even window has one more element before its center than after
)
_POOLS: tuple[dict[str, Any], ...] = (
    {},
    {"window": 2},
    {"window": 3, "stride": 1},
    {"window": 3, "stride": 3},
    {"window": 5, "stride": 3},
)
# Channel counts divisible by 4, by 2 only, and odd; odd and even sides; zero, one and two batch axes.
_SHAPES = ((2, 13, 13, 48), (1, 7, 8, 5), (3, 6, 5, 1), (2, 1, 5, 6, 10), (9, 7, 12))

ALL_SPECS = (
    *(Spec("response_norm", shape, norm) for norm in _NORMS for shape in _SHAPES),
    *(Spec("max_pool", shape, pool) for pool in _POOLS for shape in _SHAPES),
    *(Spec("norm_pool", shape, norm | pool) for norm, pool in zip(_NORMS, _POOLS, strict=False) for shape in _SHAPES),
)
"""Calls with all settings on all shapes, except normalization within each channel."""

SAMPLED_SPECS = tuple(ALL_SPECS[first + first // len(_SHAPES) % len(_SHAPES)] for first in range(0, len(ALL_SPECS), len(_SHAPES)))
"""A subset of `ALL_SPECS` with every setting, each on one shape, and every shape."""

SAME_MAP_SPECS = tuple(Spec("response_norm", shape, {"axes": (-3, -2), "k": 1.0, "alpha": 0.001}) for shape in _SHAPES[:2])
"""Calls of normalization within each channel, which only the XLA and reference implementations support."""

OPERATIONS = ("response_norm", "max_pool", "norm_pool")
CHANNEL_COUNTS = (48, 64, 96, 128, 192, 256)


def conv1_spec(op: str, batch: int = 256, channels: int = 96) -> Spec:
    """Return a call on the output of AlexNet's conv1, [batch, 55, 55, channels], where the operations are most expensive."""
    return Spec(op, (batch, 55, 55, channels))


def conv2_spec(op: str, batch: int = 256) -> Spec:
    """Return a call on the output of AlexNet's conv2, [batch, 27, 27, 256]."""
    return Spec(op, (batch, 27, 27, 256))
