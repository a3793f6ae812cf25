"""Memory traffic of a compiled function, computed from the text of its optimized HLO."""

import math
import re
from dataclasses import dataclass

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
_ARRAY = re.compile(r"(pred|s8|u8|bf16|f16|s32|u32|f32|s64|u64|f64)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$")
# These instructions name, group or reinterpret arrays and move no data.
_NO_TRAFFIC = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}
_REARRANGING = {"copy", "transpose", "slice", "concatenate", "dynamic-slice", "dynamic-update-slice", "reverse"}
# What XLA fuses with them without giving the kernel a purpose of its own: biases, ReLU, casts.
_ELEMENTWISE = {"add", "compare", "select", "convert", "broadcast"}


@dataclass(frozen=True)
class Traffic:
    """Memory traffic of a function; every kernel or library call reads its operands and writes its results once.

    Attributes:
      kernels: number of GPU kernels and library calls.
      moved: bytes read and written.
      glue: part of `moved` of kernels that only rearrange arrays: copies, transposes, slices and stacks, also with an addition or
        ReLU. A slice reads only what it writes.
    """

    kernels: int
    moved: int
    glue: int


def traffic(hlo: str) -> Traffic:
    """Return the memory traffic of the entry computation.

    Args:
      hlo: text of the optimized HLO module.
    """
    instructions: list[tuple[str, str, str, str]] = []
    computations: dict[str, list[tuple[str, str, str, str]]] = {}
    for line in hlo.splitlines():
        if header := _COMPUTATION.match(line):
            instructions = computations.setdefault("ENTRY" if header[1] else header[2], [])
        elif instruction := _INSTRUCTION.match(line):
            name, shape, operation, rest = instruction.groups()
            instructions.append((name, shape, operation, rest))
    sizes: dict[str, int] = {}
    kernels = moved = glue = 0
    for name, shape, operation, rest in computations["ENTRY"]:
        sizes[name] = _bytes(shape)
        if operation in _NO_TRAFFIC:
            continue
        called = re.search(r"calls=%?([\w.-]+)", rest)
        operations = {operation} if called is None else {each[2] for each in computations[called[1]]}
        size = sizes[name] + sum(sizes.get(operand, 0) for operand in re.findall(r"%?([\w.-]+)", _arguments(rest)))
        if "slice" in operations and "concatenate" not in operations:
            size = min(size, 2 * sizes[name])
        kernels, moved = kernels + 1, moved + size
        if operations & _REARRANGING and operations <= _REARRANGING | _ELEMENTWISE | _NO_TRAFFIC:
            glue += size
    return Traffic(kernels, moved, glue)


def _bytes(shape: str) -> int:
    return sum(_BYTES[kind] * math.prod(int(n) for n in axes.split(",") if n) for kind, axes in _ARRAY.findall(shape))


def _arguments(rest: str) -> str:
    """Return the text before the parenthesis that closes the operands of an instruction."""
    depth = 1
    for position, character in enumerate(rest):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return rest[:position]
    return rest
