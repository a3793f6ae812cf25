"""Tests of finding the config or network that the argument of `summary` or `schedule` names."""

import json
import re
import sys
from dataclasses import asdict

import pytest

from alexnet_jax import Augmentation
from alexnet_jax.cli import main as cli
from alexnet_jax.cli.find_config import find_config, find_network
from alexnet_jax.configs import config_names, load_config
from alexnet_jax.errors import UserError
from alexnet_jax.model.catalog import NETWORKS
from alexnet_jax.model.layers import Layer
from alexnet_jax.training.run_config import DataRecord
from alexnet_jax.weights import safetensors_file, trained_model
from alexnet_jax.weights.trained_model import initialize, load, save
from tests.tiny import TINY


def test_names_and_python_files(tmp_path):
    assert find_network("source_146") is NETWORKS["source_146"]
    for name in config_names():
        assert find_network(name) == load_config(name).network
    (tmp_path / "mine.py").write_text("from alexnet_jax import ONE_GPU, TrainConfig\nCONFIG = TrainConfig(ONE_GPU)\n")
    assert find_network(str(tmp_path / "mine.py")).name == "one_gpu"
    with pytest.raises(UserError, match=r"there is no network or config 'vgg': .*one_gpu.*cifar_four_layers.*, or a Python file"):
        find_network("vgg")
    with pytest.raises(UserError, match=r"there is no config 'vgg': .*cifar_four_layers.*, or a Python file .*, a run folder"):
        find_config("vgg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1\nCONFIG = foo\n", r"line 2 of \S*/mine.py fails with NameError \(name 'foo' is not defined\): correct it"),
        ("x = 1\nCONFIG = (\n", r"line 2 of \S*/mine.py fails with SyntaxError"),
        ("import nowhere\n", r"line 1 of \S*/mine.py fails with ModuleNotFoundError"),
        ("\0", r"mine.py fails with SyntaxError"),
        ("raise SystemExit\n", r"line 1 of \S*/mine.py fails with SystemExit"),
        (
            "from alexnet_jax import ONE_GPU, TrainConfig\nCONFIG = TrainConfig(ONE_GPU, epochs=0)\n",
            "--epochs must be at least 1",
        ),
    ],
)
def test_errors_in_python_files_are_one_line(content, message, tmp_path):
    (tmp_path / "mine.py").write_text(content)
    with pytest.raises(UserError, match=message):
        load_config(str(tmp_path / "mine.py"))


OWN_LAYER = """
from __future__ import annotations
from dataclasses import dataclass, replace
from alexnet_jax import Augmentation, ONE_GPU, TrainConfig, Transform
from alexnet_jax.model.layers import Layer

class Negative(Layer):
    short_name = "negative"
    factor: float = -1.0

    def __call__(self, x):
        return self.factor * x

@dataclass(frozen=True)
class Unchanged(Transform):
    share: float = 1.0

    def random_map(self, element, rng):
        return element

network = replace(ONE_GPU, layers=(*ONE_GPU.layers[:-1], Negative(), ONE_GPU.layers[-1]))
CONFIG = TrainConfig(network, augmentation=Augmentation(transforms=(Unchanged(),)))
"""


def test_commands_import_the_file_that_defines_a_layer(tmp_path, monkeypatch, capsys):
    (tmp_path / "own.py").write_text(OWN_LAYER)
    network = load_config(str(tmp_path / "own.py")).network
    data = DataRecord("", {}, ["class"] * network.num_classes)
    record = {"network": network.to_json(), "augmentation": Augmentation().to_json(), "data": asdict(data)}
    (tmp_path / "config.json").write_text(json.dumps(record))
    monkeypatch.delitem(Layer.registry.classes, "Negative")
    monkeypatch.setattr(sys, "argv", ["alexnet-jax", "summary", str(tmp_path)])
    with pytest.raises(SystemExit):
        cli.main()
    assert "alexnet-jax --code FILE.py COMMAND" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["alexnet-jax", "--code", str(tmp_path / "own.py"), "summary", str(tmp_path)])
    cli.main()
    assert "fc7/negative" in capsys.readouterr().out


def test_trained_networks_without_their_parameters(trained_run, tmp_path, monkeypatch):
    model = load(trained_run)
    save(model, tmp_path / "exported.safetensors")

    def fails(*_):
        raise AssertionError("parameters are loaded")

    monkeypatch.setattr(trained_model, "read_params", fails)
    monkeypatch.setattr(trained_model, "read_model", fails)
    monkeypatch.setattr(safetensors_file, "read_tensors", fails)
    checkpoint = next((trained_run / "checkpoints").iterdir())
    for path in (trained_run, checkpoint, tmp_path / "exported.safetensors"):
        assert find_network(str(path)) == model.network
        assert find_config(str(path)) == model.config.training


def test_checkpoint_of_another_data_set_is_refused(trained_run, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoints").symlink_to(trained_run / "checkpoints")
    (run / "mean_image.npy").symlink_to(trained_run / "mean_image.npy")
    config = json.loads((trained_run / "config.json").read_text())
    for checksum in (config["data"]["checksum"], "other"):
        config["data"] |= {"checksum": checksum, "path": "moved", "display_names": ["x", "y"]}
        (run / "config.json").write_text(json.dumps(config))
        if checksum != "other":
            assert load(run).step == load(trained_run).step
    with pytest.raises(UserError, match=r"run/checkpoints/\d+ has another network or data set than .*run/config.json: put the"):
        load(run)


def test_errors_of_trained_networks_are_one_line(tmp_path):
    save(initialize(TINY, image_size=32), tmp_path / "imported.safetensors")
    assert find_network(str(tmp_path / "imported.safetensors")) == TINY
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("[1, 2")
    for find, name, message in (
        (find_config, "imported.safetensors", "was not trained by this program"),
        (find_network, "damaged.safetensors", "cannot read .*damaged.safetensors: .*; download or export it again"),
        (find_network, "run", "cannot read .*run/config.json: restore it, or pass a checkpoint"),
        (find_network, ".", "has no checkpoints: pass a run folder"),
    ):
        with pytest.raises(UserError, match=message) as error:
            find(str(tmp_path / name))
        assert not re.search(r"\n", str(error.value))


def test_config_file_in_the_home_folder(tmp_path, monkeypatch):
    """Check that ~ is expanded, which the shell does not do inside of quotes, as in make."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.py").write_text("from alexnet_jax import load_config\nCONFIG = load_config('quickstart')\n")
    assert load_config("~/own.py") == load_config("quickstart")
    with pytest.raises(UserError, match=r"other.py does not exist: pass a Python file that defines CONFIG"):
        load_config("~/other.py")
