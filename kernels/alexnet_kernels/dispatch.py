"""Which implementation of an operation runs.

An implementation is a module of this package, named in `Implementation`, with a function for each operation and a function
`unsupported_reason(op, x, device, **settings)` that says why it cannot do what is asked, or None. Its folder can be deleted whole.
"""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import jax
from jax import Array

Name = Literal["triton", "xla", "reference", "triton.interpreted"]
"""A module of this package, see above."""
Implementation = Name | Sequence[Name] | None
"""One implementation; several, of which the first that can do it runs; or None, the first of `default_order` that can."""

default_order: tuple[Name, ...] = ("triton", "xla")


@contextmanager
def default_implementation(*names: Name) -> Iterator[None]:
    """Inside, `implementation=None` takes one of these. It counts when a function is traced, not when it is run."""
    global default_order
    before, default_order = default_order, names
    try:
        yield
    finally:
        default_order = before


def dispatch(op: str, x: Array, implementation: Implementation, **settings: Any) -> Array:
    """`op(x, **settings)` by the first of the implementations that this device and these arguments allow.

    Raises:
      ValueError: if there is no such implementation, or none that can.
    """
    names = default_order if implementation is None else (implementation,) if isinstance(implementation, str) else implementation
    reasons = []
    for name in names:
        if name not in get_args(Name):
            raise ValueError(f"{op} has no implementation {name!r}; there are: {', '.join(get_args(Name))}")
        try:
            module = importlib.import_module(f"alexnet_kernels.{name}")
        except ImportError as error:  # a version of JAX that no longer has what the kernels are written in
            reasons.append(f"{name} cannot be imported ({error})")
            continue
        reason = module.unsupported_reason(op, x, current_device(), **settings)
        if reason is None:
            return getattr(module, op)(x, **settings)
        reasons.append(f"{name} {reason}")
    raise ValueError(f"{op} cannot run: {'; '.join(reasons)}. implementation=None takes one that can")


def current_device() -> Any:
    """The device that computations go to: the default one, whose kind stands for that of every device in use."""
    chosen = jax.config.jax_default_device  # type: ignore[reportAttributeAccessIssue]
    return jax.local_devices(backend=chosen)[0] if chosen is None or isinstance(chosen, str) else chosen
