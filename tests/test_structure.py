"""Tests of the source code: no attribute is first assigned outside `__init__`, and no function has more than six parameters."""

import ast
from pathlib import Path

SOURCES = sorted((Path(__file__).parents[1] / "src").rglob("*.py"))
MAX_PARAMETERS = 6


def assigned_attributes(function):
    """Return the attributes of `self` that a method assigns."""
    nodes = (node for node in ast.walk(function) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    return {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "self"}


def late_attributes(tree):
    """Yield CLASS.ATTRIBUTE for attributes that are neither class attributes nor assigned in `__init__`, or `setup` of Flax."""
    for class_ in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        methods = [node for node in class_.body if isinstance(node, ast.FunctionDef)]
        class_attributes = {
            target.id
            for node in class_.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in ast.walk(node)
            if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store)
        }
        initial = set().union(*(assigned_attributes(method) for method in methods if method.name in ("__init__", "setup")))
        for method in methods:
            yield from (f"{class_.name}.{name}" for name in assigned_attributes(method) - initial - class_attributes)


def long_signatures(tree):
    """Yield the names of functions with too many parameters; the constructors that dataclasses generate do not count."""
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        if len([argument for argument in arguments if argument.arg not in ("self", "cls")]) > MAX_PARAMETERS:
            yield function.name


def findings(check):
    return [f"{file.name}: {name}" for file in SOURCES for name in check(ast.parse(file.read_text()))]


def test_checks_find_violations():
    code = "class A:\n x = 1\n def __init__(self): self.a = 1\n def f(self, b, c, d, e, f, g, h): self.a = self.x = self.z = b"
    assert list(late_attributes(ast.parse(code))) == ["A.z"]
    assert list(long_signatures(ast.parse(code))) == ["f"]


def test_attributes_are_assigned_in_init():
    assert findings(late_attributes) == []


def test_functions_have_few_parameters():
    assert findings(long_signatures) == []
