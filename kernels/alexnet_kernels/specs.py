"""Calls that the operations are tested and timed on: one list for the tests, the compiler check and the benchmarks."""

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Spec:
    """A call `op(x, **settings)` with x of `shape`."""

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
    {"size": 4, "k": 1.5, "alpha": 0.1, "beta": 0.6},  # an even window reaches further back than ahead
)
_POOLS: tuple[dict[str, Any], ...] = (
    {},
    {"window": 2},
    {"window": 3, "stride": 1},
    {"window": 3, "stride": 3},
    {"window": 5, "stride": 3},
)
# Channels that 4, 2 and nothing divides; odd and even sides; batches of 1, 2 and 3, of two axes, and none.
_SHAPES = ((2, 13, 13, 48), (1, 7, 8, 5), (3, 6, 5, 1), (2, 1, 5, 6, 10), (9, 7, 12))

EVERY = (
    *(Spec("response_norm", shape, norm) for norm in _NORMS for shape in _SHAPES),
    *(Spec("max_pool", shape, pool) for pool in _POOLS for shape in _SHAPES),
    *(Spec("norm_pool", shape, norm | pool) for norm, pool in zip(_NORMS, _POOLS, strict=False) for shape in _SHAPES),
)
"""What an implementation across channels must get right, every setting on every shape."""

SOME = EVERY[:: len(_SHAPES) + 1] + EVERY[2 :: len(_SHAPES) + 1]
"""Every setting and every shape, but not all pairs."""

SAME_MAP = tuple(Spec("response_norm", shape, {"axes": (-3, -2), "k": 1.0, "alpha": 0.001}) for shape in _SHAPES[:2])
"""Normalization within each map, which XLA alone offers."""

OPERATIONS = ("response_norm", "max_pool", "norm_pool")
CHANNELS = (48, 64, 96, 128, 192, 256)


def first_layer(op: str, batch: int = 256, channels: int = 96) -> Spec:
    """The operation where it costs most: behind AlexNet's first convolution."""
    return Spec(op, (batch, 55, 55, channels))


def second_layer(op: str, batch: int = 256, channels: int = 256) -> Spec:
    """An operation on what conv2 puts out, [batch, 27, 27, channels]."""
    return replace(first_layer(op, batch, channels), shape=(batch, 27, 27, channels))
