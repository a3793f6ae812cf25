"""Test of the mutants: each of them is valid Python with one change."""

import ast
from importlib import import_module
from pathlib import Path

import pytest


@pytest.fixture
def mutants(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "experiments")
    return import_module("mutants")


def test_every_mutant_has_one_change(mutants):
    for file in ("training/optimizer.py", "configs/source_145.py", "evaluation/views.py"):
        original = mutants.MODULES[0].parent / file
        tree = ast.dump(ast.parse(original.read_text()))
        made = list(mutants.mutants(file))
        assert len(set(made)) == len(made)
        for mutant in made:
            changed = mutants.mutated_text(mutant, original.read_bytes())
            assert ast.dump(ast.parse(changed)) != tree, mutant
    changes = {(mutant.original, mutant.mutated) for mutant in mutants.mutants("configs/source_145.py")}
    assert {("91", "92"), ("1e-5", "2e-05"), ('"conv1"', "'conv2'"), (", bias_milestones=()", ""), ("epochs=91,", "")} <= changes
    assert ('"center"', "'channel'") in {
        (mutant.original, mutant.mutated) for mutant in mutants.mutants("data/pipeline/augment.py")
    }
