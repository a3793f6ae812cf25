"""Memory traffic of a compiled function, computed from the text of its optimized HLO."""

import math
import re

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
_ARRAY = re.compile(r"(pred|s8|u8|bf16|f16|s32|u32|f32|s64|u64|f64)\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$")
# These instructions name, group or reinterpret arrays and move no data.
_NO_TRAFFIC = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}


def moved_bytes(hlo: str) -> int:
    """Return the total size of the operands and results of all instructions in the entry computation, in bytes.

    Each instruction is one GPU kernel or library call.

    Args:
      hlo: text of the optimized HLO module.
    """
    entry = hlo[hlo.index("\nENTRY") :]
    sizes: dict[str, int] = {}
    total = 0
    for line in entry.splitlines()[2:]:
        match = _INSTRUCTION.match(line)
        if match is None:
            continue
        name, shape, operation, rest = match.groups()
        sizes[name] = _bytes(shape)
        if operation not in _NO_TRAFFIC:
            operands = re.findall(r"%?([\w.-]+)", _arguments(rest))
            total += sizes[name] + sum(sizes.get(operand, 0) for operand in operands)
    return total


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
