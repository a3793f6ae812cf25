"""Whatever is public says what it is: the documentation is made of docstrings."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(file for room in ("src", "kernels") for file in (ROOT / room).rglob("*.py"))
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(body: list[ast.stmt]) -> Iterator[Definition]:
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node


def methods(node: Definition) -> Iterator[Definition]:
    return definitions(node.body) if isinstance(node, ast.ClassDef) else iter(())


CLASSES = {
    node.name: node for file in FILES for node in definitions(ast.parse(file.read_text()).body) if isinstance(node, ast.ClassDef)
}


def inherited(of: Definition, method: str) -> bool:
    """Whether a base class of this house says what the method does."""
    names = [base.id for base in of.bases if isinstance(base, ast.Name)] if isinstance(of, ast.ClassDef) else []
    bases = [CLASSES[name] for name in names if name in CLASSES]
    return any(
        any(own.name == method and ast.get_docstring(own) for own in methods(base)) or inherited(base, method) for base in bases
    )


def without_docstring(text: str) -> Iterator[str]:
    """Names of a module, and "module" for itself. A method that overrides one need not say again what that does."""
    module = ast.parse(text)
    if not ast.get_docstring(module):
        yield "module"
    for node in definitions(module.body):
        if not ast.get_docstring(node):
            yield node.name
        for method in methods(node):
            if not ast.get_docstring(method) and not inherited(node, method.name):
                yield f"{node.name}.{method.name}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_everything_public_has_a_docstring(file):
    assert not list(without_docstring(file.read_text()))


def test_the_check_finds_what_is_missing():
    text = "def f(): ...\ndef _g(): ...\nclass C(Source):\n  def m(self): ...\n  def read(self): ...\n  def __str__(self): ..."
    assert list(without_docstring(text)) == ["module", "f", "C", "C.m"]
