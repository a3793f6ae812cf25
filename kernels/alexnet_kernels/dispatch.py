"""Selection of the implementation that computes an operation.

An implementation is a module of this package whose name is in `ImplementationName`. It defines a function for each operation and,
unless it supports every call, `unsupported_reason(op, x, device, **settings)`, which returns the reason why it does not support
one, or None. An implementation can be removed by deleting its folder: one that cannot be imported counts as unsupported.
"""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, get_args

import jax
from jax import Array

ImplementationName = Literal["triton", "xla", "reference", "triton.interpreted"]
"""Module of this package that implements the operations."""
Implementation = ImplementationName | Sequence[ImplementationName] | None
"""Name of an implementation, or a sequence of names of which the first supported one is used. None uses `current_order()`."""

DEFAULT_ORDER: tuple[ImplementationName, ...] = ("triton", "xla")
"""Implementations to try, in this order, for `implementation=None` outside of `default_implementation`."""

_order: ContextVar[tuple[ImplementationName, ...]] = ContextVar("order", default=DEFAULT_ORDER)


@contextmanager
def default_implementation(*names: ImplementationName) -> Iterator[None]:
    """Context manager that sets the implementations to try, in this order, for `implementation=None`.

    It applies to functions traced inside the context; an already compiled function keeps its implementation.
    """
    token = _order.set(names)
    try:
        yield
    finally:
        _order.reset(token)


def current_order() -> tuple[ImplementationName, ...]:
    """Return the implementations to try, in this order, for `implementation=None`."""
    return _order.get()


def dispatch(op: str, x: Array, implementation: Implementation, **settings: Any) -> Array:
    """Compute `op(x, **settings)` with the first implementation that supports the device and the arguments.

    Raises:
      ValueError: if an implementation is unknown, or none supports the call.
    """
    names = (implementation,) if isinstance(implementation, str) else implementation or current_order()
    reasons = []
    for name in names:
        if name not in get_args(ImplementationName):
            raise ValueError(f"{op} has no implementation {name!r}; choose one of {', '.join(get_args(ImplementationName))}")
        reason = unsupported_reason(name, op, x, current_device(), **settings)
        if reason is None:
            return getattr(_module(name), op)(x, **settings)
        reasons.append(f"{name} {reason}")
    advice = "" if implementation is None else ". Use implementation=None to select one"
    raise ValueError(f"no implementation of {op} supports this call: {'; '.join(reasons)}{advice}")


def unsupported_reason(name: ImplementationName, op: str, x: Any, device: Any, **settings: Any) -> str | None:
    """Return the reason why an implementation does not support a call, or None.

    Args:
      name: name of the implementation.
      op: name of the operation.
      x: input array, or its shape and dtype as a `jax.ShapeDtypeStruct`.
      device: JAX device.
      **settings: further arguments of the operation.
    """
    try:
        module = _module(name)
    except ImportError as error:  # other versions of JAX may lack the Pallas functions that the kernels use
        return f"cannot be imported ({error})"
    return module.unsupported_reason(op, x, device, **settings) if hasattr(module, "unsupported_reason") else None


def _module(name: ImplementationName) -> Any:
    return importlib.import_module(f"alexnet_kernels.{name}")


def current_device() -> Any:
    """Return JAX's default device. All devices in use are assumed to be of the same kind."""
    default = jax.config.jax_default_device  # type: ignore[reportAttributeAccessIssue]
    return jax.local_devices(backend=default)[0] if default is None or isinstance(default, str) else default
