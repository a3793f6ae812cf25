"""Tests of `export` and `import`, and of exported files as inputs of other commands."""

import json
import re
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from alexnet_jax import NETWORKS
from alexnet_jax.cli import main as cli
from alexnet_jax.cli.export import Export, export
from alexnet_jax.cli.import_weights import Import, import_file
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.model.tower import params_digest
from alexnet_jax.training.config import Options
from alexnet_jax.training.train import train
from alexnet_jax.weights.caffe import swap_bgr_rgb
from alexnet_jax.weights.pytorch import to_torchvision
from alexnet_jax.weights.state_dict import to_state_dict
from alexnet_jax.weights.trained_model import TrainedModel, load, save
from tests.conftest import TINY_CONFIG
from tests.weights.caffemodel import caffemodel
from tests.weights.small import SMALL_BVLC, SMALL_TORCHVISION, random_params


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    options = Options(data=str(photos), data_dir=photos.parent / "data", runs_dir=tmp_path_factory.mktemp("runs"), devices=2)
    return train("tiny", replace(TINY_CONFIG, epochs=1), options).run


@pytest.fixture
def exported(run, tmp_path):
    return export(Export(run, tmp_path / "tiny.safetensors"))


@pytest.fixture
def small_networks(monkeypatch):
    """Replace the full-size networks, which need a minute and a gigabyte, by small ones."""
    for network in (SMALL_BVLC, SMALL_TORCHVISION):
        monkeypatch.setitem(NETWORKS, network.name, network)


def models_equal(a: TrainedModel, b: TrainedModel):
    """Return whether networks, classes, parameters and mean images are equal; paths and configs are ignored."""
    assert a.network == b.network
    assert a.classes == b.classes
    assert jax.tree.structure(a.params) == jax.tree.structure(b.params)
    assert all(map(np.array_equal, jax.tree.leaves(a.params), jax.tree.leaves(b.params)))
    assert np.array_equal(a.mean_image, b.mean_image)
    return True


def test_exported_file_equals_the_run(run, exported, rng):
    loaded, model = load(exported), load(run)
    assert models_equal(loaded, model)
    assert (loaded.config, loaded.step, loaded.versions) == (model.config, 10, model.versions)
    images = rng.integers(0, 256, (3, 32, 32, 3), np.uint8)
    assert np.array_equal(Predictor(loaded)(images), Predictor(model)(images))
    with safe_open(exported, framework="numpy") as file:
        assert json.loads(file.metadata()["classes"]) == ["above", "below"]
        assert json.loads(file.metadata()["network"])["name"] == "tiny"
    copy = export(Export(exported, exported.with_name("copy.safetensors")))
    assert models_equal(load(copy), loaded)


def test_round_trip_through_pytorch_layout(run, tmp_path):
    file = export(Export(run, tmp_path / "pytorch.safetensors", layout="pytorch"))
    assert load_file(file)["mean_image"].shape == (3, 32, 32)
    with pytest.raises(UserError, match=r"pytorch.safetensors is not in the alexnet-jax layout: .*alexnet-jax import"):
        load(file)
    imported, model = load(import_file(Import(file, tmp_path / "imported.safetensors"))), load(run)
    assert (imported.config, imported.step) == (model.config, 10)
    # The round trip would set padding units to zero, but two classes in two towers need no padding.
    assert models_equal(imported, model)


def test_commands_accept_an_exported_file(exported, photos, tmp_path, monkeypatch, capsys):
    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["alexnet_jax", *map(str, arguments)])
        cli.main()
        return capsys.readouterr().out

    output_dir = exported.with_suffix("")
    assert str(output_dir / "evaluation") in command("evaluate", exported)
    command("figures", exported)
    assert (output_dir / "report.html").exists()
    assert not (output_dir / "curves.png").exists(), "an exported file contains no training log"
    command("index", exported, "--to", tmp_path / "index")
    photo = next(photos.rglob("above/*.jpg"))
    assert command("retrieve", tmp_path / "index", photo).count(str(photo)) == 6
    assert str(tmp_path / "b.safetensors") in command("export", exported, "--to", tmp_path / "b.safetensors")


def test_import_and_export_of_torchvision_alexnet(small_networks, tmp_path):
    arrays = to_torchvision(to_state_dict(SMALL_TORCHVISION, random_params(SMALL_TORCHVISION)))
    save_file(arrays, tmp_path / "torchvision.safetensors")
    (tmp_path / "names.txt").write_text("".join(f"class {number}\n" for number in range(6)))
    imported = import_file(
        Import(
            tmp_path / "torchvision.safetensors",
            tmp_path / "imported.safetensors",
            "torchvision_alexnet",
            classes=tmp_path / "names.txt",
        )
    )
    model = load(imported)
    assert model.classes[5] == "class 5"
    assert (model.mean_image == np.array([123.675, 116.28, 103.53], np.float32)).all()
    round_trip = load_file(export(Export(imported, tmp_path / "exported.safetensors", layout="torchvision")))
    assert list(round_trip) == sorted(arrays)
    assert all(np.array_equal(round_trip[name], array) for name, array in arrays.items())
    save(replace(model, mean_image=np.random.default_rng(0).uniform(0, 255, model.mean_image.shape).astype(np.float32)), imported)
    assert_fails("torchvision subtracts one mean per color", Export(imported, tmp_path / "x.safetensors", layout="torchvision"))


def test_import_of_caffe_networks(small_networks, tmp_path):
    params = random_params(SMALL_BVLC)
    file = tmp_path / "bvlc_alexnet.caffemodel"
    file.write_bytes(caffemodel(to_state_dict(SMALL_BVLC, swap_bgr_rgb(params))))
    mean = np.random.default_rng(0).uniform(0, 255, (3, 128, 128)).astype(np.float32)
    np.save(tmp_path / "mean.npy", mean)
    to = tmp_path / "imported.safetensors"
    model = load(import_file(Import(file, to, "bvlc_alexnet", mean=tmp_path / "mean.npy", mean_colors="bgr", image_size=128)))
    assert all(map(np.array_equal, jax.tree.leaves(model.params), jax.tree.leaves(params)))
    assert np.array_equal(model.mean_image[..., 0], mean[2]), "Caffe's channel order is BGR"
    assert model.image_size == 128
    assert model.classes == list("012345")
    names = {f"n0000000{number}": f"name {number}" for number in range(6)}
    (tmp_path / "synset_words.txt").write_text("".join(f"{key} {name}, synonym\n" for key, name in names.items()))
    model = load(import_file(Import(file, to, "bvlc_alexnet", classes=tmp_path / "synset_words.txt")))
    assert dict(zip(model.classes, model.printed_classes, strict=True)) == names
    exported = export(Export(to, tmp_path / "exported.safetensors", layout="pytorch"))
    with safe_open(exported, "numpy") as opened:
        assert json.loads(opened.metadata()["printed_classes"]) == list(names.values())
    assert load(import_file(Import(file, to, "bvlc_alexnet"))).mean_image[0, 0].tolist() == [123, 117, 104]
    assert_fails("does not record its network: pass --network with one of two_tower", Import(file, to))
    assert_fails("conv1.weight in .* has shape 8×3×11×11, expected", Import(file, to, "two_tower"))


def assert_fails(message: str, command: Export | Import):
    before = set(command.to.parent.iterdir())
    with pytest.raises(UserError, match=message) as error:
        export(command) if isinstance(command, Export) else import_file(command)
    assert "\n" not in str(error.value)
    assert set(command.to.parent.iterdir()) == before, "no partial file is left"


def test_invalid_arguments_are_rejected(run, exported, tmp_path):
    to = tmp_path / "never.safetensors"
    assert_fails("tiny is not torchvision's alexnet: use --layout pytorch", Export(run, to, layout="torchvision"))
    assert_fails(r"never.pt must end in .safetensors", Export(run, tmp_path / "never.pt"))
    assert_fails("nowhere does not exist: pass a run folder", Export(tmp_path / "nowhere", to))
    assert_fails("cannot read .*nowhere.safetensors: ", Export(tmp_path / "nowhere.safetensors", to))
    assert_fails("nowhere.pt does not exist", Import(tmp_path / "nowhere.pt", to))
    assert_fails("is already in the alexnet-jax layout", Import(exported, to))
    exported_pytorch = export(Export(run, tmp_path / "pytorch.safetensors", layout="pytorch"))
    (tmp_path / "names.txt").write_text("one\n")
    assert_fails("has 1 class names, expected 2", Import(exported_pytorch, to, classes=tmp_path / "names.txt"))
    arrays = load_file(exported_pytorch)
    del arrays["mean_image"]
    save_file(arrays, tmp_path / "plain.safetensors")
    assert_fails("does not record its network", Import(tmp_path / "plain.safetensors", to))
    assert_fails("plain.safetensors does not match the network: missing", Import(tmp_path / "plain.safetensors", to, "two_tower"))


def test_damaged_files_are_rejected(exported, tmp_path):
    content = exported.read_bytes()
    damaged = tmp_path / "damaged.safetensors"

    def load_error(content):
        damaged.write_bytes(content)
        with pytest.raises(UserError) as error:
            load(damaged)
        assert "\n" not in str(error.value)
        return str(error.value)

    for size in (0, 4, 100, len(content) // 2, len(content) - 1):
        assert re.match("cannot read .*damaged.safetensors", load_error(content[:size]))
    tensors = load_file(exported)
    with safe_open(exported, framework="numpy") as file:
        metadata = file.metadata()

    def save_and_load_error(tensors, metadata):
        checksum = {} if metadata is None else {"checksum": params_digest(tensors)}
        save_file(tensors, damaged, metadata and metadata | checksum)
        return load_error(damaged.read_bytes())

    assert "is not in the alexnet-jax layout" in save_and_load_error(tensors, None)
    assert "has no valid config in its metadata" in save_and_load_error(tensors, {**metadata, "config": "{"})
    assert "conv1.bias in" in save_and_load_error({**tensors, "conv1.bias": np.zeros((2, 5), np.float32)}, metadata)
    assert "unexpected arrays: more" in save_and_load_error({**tensors, "more": np.zeros(1, np.float32)}, metadata)
    changed = {**tensors, "conv1.bias": tensors["conv1.bias"] + 1}
    save_file(changed, damaged, metadata)
    assert "is damaged (the checksum does not match)" in load_error(damaged.read_bytes())
    assert "has version 3 of the format, expected 2" in save_and_load_error(tensors, metadata | {"format": "3"})
    del tensors["mean_image"]
    assert "missing arrays: mean_image" in save_and_load_error(tensors, metadata)


def test_full_disk_keeps_the_old_file(run, exported, monkeypatch):
    from alexnet_jax import files

    before = exported.read_bytes()

    def raise_disk_full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.Path, "write_bytes", raise_disk_full)
    assert_fails("no space left on the disk for .*tiny.safetensors", Export(run, exported))
    assert exported.read_bytes() == before
