"""Parsing of a command's arguments by tyro."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from alexnet_jax.files import expanded

T = TypeVar("T")

REGISTRY = ConstructorRegistry()
"""Types that are parsed in another way than tyro's."""


def parse(command: Callable[..., T], name: str, arguments: Sequence[str], config: Sequence[Any] = ()) -> T:
    """Return `command` called with the arguments of the command line, or print its help and exit.

    Args:
      command: function or dataclass whose parameters are the options.
      name: name of the command, for its help.
      arguments: command line arguments after the name.
      config: tyro's markers for all options.
    """
    return tyro.cli(command, prog=f"alexnet-jax {name}", args=arguments, config=config, registry=REGISTRY)


@REGISTRY.primitive_rule
def _path(type_info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
    """Expand ~ in paths, which a shell does not do in --to=~/name: the folder to create would be named ~."""
    if type_info.type is not Path:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda values: expanded(values[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    )


@REGISTRY.primitive_rule
def _optional(type_info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Show an option of type `Path | None` as PATH, where tyro shows {None}|PATH. It still accepts None."""
    options = [option for option in get_args(type_info.type) if option is not NoneType]
    if type_info.type_origin not in (Union, UnionType) or len(options) != 1:
        return None
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(options[0], type_info.markers))
    if not isinstance(spec, PrimitiveConstructorSpec):
        return None
    return replace(
        spec,
        instance_from_str=lambda values: None if values == ["None"] else spec.instance_from_str(values),
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else spec.str_from_instance(value),
        choices=spec.choices and (*spec.choices, "None"),
    )
