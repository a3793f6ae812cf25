"""Which implementation of an operation runs."""

from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

Implementation = Literal["xla", "reference"]
Operation = TypeVar("Operation", bound=Callable)


def choose(op: str, name: str | None, implementations: Mapping[str, Operation]) -> Operation:
    """The implementation called `name`, or the best this device can run."""
    name = name or "xla"
    if name not in implementations:
        raise ValueError(f"{op} has no implementation {name!r}; there are: {', '.join(implementations)}")
    return implementations[name]
