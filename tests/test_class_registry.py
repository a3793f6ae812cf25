"""Tests that a stored name stands for one class: that of this package, or that of one file of the user."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from alexnet_jax.configs import import_file
from alexnet_jax.data.pipeline.transforms import RandomCrop, Transform
from alexnet_jax.errors import UserError
from alexnet_jax.model.layers import Dropout, Layer, MaxPool
from alexnet_jax.training.schedule import LearningRateSchedule, StepDecay

LAYER = """
from alexnet_jax.model.layers import Layer

class Cubed(Layer):
    short_name = "cubed"

    def __call__(self, x):
        return x ** 3
"""


pytestmark = pytest.mark.usefixtures("registered_classes")


@pytest.mark.parametrize(
    ("name", "base", "original", "kind"),
    [
        ("Dropout", Layer, Dropout, "layer class"),
        ("MaxPool", MaxPool, MaxPool, "layer class"),
        ("RandomCrop", Transform, RandomCrop, "transform"),
        ("StepDecay", LearningRateSchedule, StepDecay, "schedule"),
        ("STEPDECAY", StepDecay, StepDecay, "schedule"),
    ],
)
def test_names_of_the_package_are_refused(name, base, original, kind):
    message = rf"test_class_registry.py defines {name}, but alexnet_jax has a {kind} of this name, .*: choose a different name"
    with pytest.raises(UserError, match=message):
        type(name, (base,), {"__module__": __name__, "__annotations__": {}})
    stored = name.lower() if base.registry.kind == "schedule" else name
    assert base.registry.find(stored) is original


def test_definition_that_is_run_again_replaces_the_earlier_one(tmp_path):
    (tmp_path / "own.py").write_text(LAYER)
    import_file(tmp_path / "own.py")
    again = import_file(tmp_path / "own.py").Cubed
    assert Layer.registry.find("Cubed") is again

    def cell():
        @dataclass(frozen=True)
        class Blurred(Transform):
            pass

        return Blurred

    cell()
    latest = cell()
    assert Transform.registry.find("Blurred") is latest


def test_definitions_in_two_files_are_ambiguous(tmp_path):
    files = [tmp_path / "first.py", tmp_path / "second.py"]
    for file in files:
        file.write_text(LAYER)
        import_file(file)
    message = f"the layer class Cubed is ambiguous, because {files[0]} and {files[1]} define it"
    with pytest.raises(UserError, match=re.escape(message)):
        Layer.registry.find("Cubed")


def test_file_has_one_definition_whatever_its_module_is_called(tmp_path, monkeypatch):
    (tmp_path / "own_layers.py").write_text(LAYER)
    import_file(tmp_path / "own_layers.py")
    monkeypatch.syspath_prepend(Path(tmp_path))
    from own_layers import Cubed  # type: ignore[reportMissingImports]

    assert Layer.registry.find("Cubed") is Cubed
