"""Bytes that devices send in the collectives of a function, counted in its StableHLO."""

import math
import re
from collections import Counter

_BYTES = {"bf16": 2, "f16": 2, "f32": 4, "i32": 4, "ui32": 4}
_COLLECTIVE = re.compile(
    r'"stablehlo\.(all_reduce|reduce_scatter|all_gather)"'
    r".*?replica_groups = dense<.*?> : tensor<\d+x(\d+)xi64>"  # groups x devices
    r".*?: \(tensor<((?:\d+x)*)(\w+)>\) ->",  # the operand of a device
    re.DOTALL,
)


def bytes_sent(stablehlo: str) -> dict[str, int]:
    """Return the bytes that each device sends in each kind of collective, if the devices form a ring.

    In a ring of n devices, each device sends (n - 1) / n of an array in a reduce-scatter, as much in the all-gather of its parts,
    and the sum of both in an all-reduce.

    Args:
      stablehlo: text of a lowered function, with the collectives of its `shard_map`.
    """
    sent: Counter[str] = Counter()
    for kind, devices, axes, dtype in _COLLECTIVE.findall(stablehlo):
        size, n = _BYTES[dtype] * math.prod(int(axis) for axis in axes.split("x") if axis), int(devices)
        sent[kind] += {
            "all_reduce": 2 * size * (n - 1) // n,
            "reduce_scatter": size * (n - 1) // n,
            "all_gather": size * (n - 1),
        }[kind]
    return dict(sent)
