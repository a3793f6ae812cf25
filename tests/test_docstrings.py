"""Tests that all public modules, classes, functions and methods have docstrings, as the reference pages require."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(file for folder in ("src", "kernels") for file in (ROOT / folder).rglob("*.py"))
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(body: list[ast.stmt]) -> Iterator[Definition]:
    """Yield the public classes and functions defined in a list of statements."""
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node


def methods(node: Definition) -> Iterator[Definition]:
    """Yield the public methods of a class, and nothing for a function."""
    return definitions(node.body) if isinstance(node, ast.ClassDef) else iter(())


CLASSES = {
    node.name: node for file in FILES for node in definitions(ast.parse(file.read_text()).body) if isinstance(node, ast.ClassDef)
}


def inherits_docstring(node: Definition, method: str) -> bool:
    """Return whether a base class in this repository has a docstring for the method."""
    names = [base.id for base in node.bases if isinstance(base, ast.Name)] if isinstance(node, ast.ClassDef) else []
    bases = [CLASSES[name] for name in names if name in CLASSES]
    return any(
        any(own.name == method and ast.get_docstring(own) for own in methods(base)) or inherits_docstring(base, method)
        for base in bases
    )


def missing_docstrings(source: str) -> Iterator[str]:
    """Yield the public names without a docstring in a module's source, and "module" for the module itself.

    Methods that override a documented method need no docstring.
    """
    module = ast.parse(source)
    if not ast.get_docstring(module):
        yield "module"
    for node in definitions(module.body):
        if not ast.get_docstring(node):
            yield node.name
        for method in methods(node):
            if not ast.get_docstring(method) and not inherits_docstring(node, method.name):
                yield f"{node.name}.{method.name}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_public_names_have_docstrings(file):
    assert not list(missing_docstrings(file.read_text()))


def test_missing_docstrings_are_found():
    source = "def f(): ...\ndef _g(): ...\nclass C(Source):\n  def m(self): ...\n  def read(self): ...\n  def __str__(self): ..."
    assert list(missing_docstrings(source)) == ["module", "f", "C", "C.m"]
