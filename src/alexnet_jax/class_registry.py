"""Classes that files name, such as the layers of a stored network; users can define more of them."""

import sys
from pathlib import Path
from typing import Any, Generic, TypeVar

from alexnet_jax.errors import UserError

Class = TypeVar("Class")

_OWN_PACKAGE = "alexnet_jax"


class ClassRegistry(Generic[Class]):
    """Subclasses of a base class, by the name that files have for them.

    Attributes:
      kind: kind of the classes, for messages, such as "layer class".
      classes: classes by name, and by the file that defines them: a definition that is run again replaces the earlier one.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self.classes: dict[str, dict[str, type[Class]]] = {}

    def add(self, name: str, new_class: type[Class]) -> None:
        """Add a class.

        Raises:
          UserError: if a class of this package and one of the user have the same name.
        """
        defined = {**self.classes.get(name, {}), _file_of(new_class): new_class}
        if len({_is_of_package(each) for each in defined.values()}) > 1:
            own = next(each for each in defined.values() if not _is_of_package(each))
            problem = f"{_file_of(own)} defines {own.__name__}, but alexnet_jax has a {self.kind} of this name"
            raise UserError(f"{problem}, which stored runs would be loaded with: choose a different name")
        self.classes[name] = defined

    def find(self, name: Any) -> type[Class]:
        """Return the class that a file names.

        Raises:
          UserError: if no imported module defines it, or several files do.
        """
        defined = self.classes.get(name, {})
        if len(defined) > 1:
            files = " and ".join(defined)
            raise UserError(
                f"the {self.kind} {name} is ambiguous, because {files} define it: import one of them, or rename a class"
            )
        if not defined:
            own = "if it is your own, import the module that defines it, for a command by alexnet-jax --code FILE.py COMMAND"
            raise UserError(f"there is no {self.kind} {name}: {own}; otherwise, use the version that saved it")
        return next(iter(defined.values()))


def _is_of_package(each: type) -> bool:
    return each.__module__.split(".")[0] == _OWN_PACKAGE


def _file_of(each: type) -> str:
    """Return the file that defines a class, or its module: the module of a file depends on how it is run or imported."""
    file = getattr(sys.modules.get(each.__module__), "__file__", None)
    return each.__module__ if file is None else str(Path(file).resolve())
