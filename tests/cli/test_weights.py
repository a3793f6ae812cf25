"""`export` and `import`, and what other commands make of their files."""

import json
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
from alexnet_jax.training.loop import Options, train
from alexnet_jax.weights.caffe import with_red_first
from alexnet_jax.weights.pytorch import to_torchvision
from alexnet_jax.weights.state_dict import to_state_dict
from alexnet_jax.weights.trained_model import TrainedModel, load, save
from tests.conftest import TINY_CONFIG
from tests.weights.caffemodel import caffemodel
from tests.weights.small import SMALL_BVLC, SMALL_TORCHVISION, random_params


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    options = Options(data=str(photos), data_dir=photos.parent / "data", runs_dir=tmp_path_factory.mktemp("runs"), devices=2)
    return train("tiny", replace(TINY_CONFIG, epochs=1), options)


@pytest.fixture
def exported(run, tmp_path):
    return export(Export(run, tmp_path / "tiny.safetensors"))


@pytest.fixture
def small_networks(monkeypatch):
    """The full ones take a minute and a gigabyte."""
    for network in (SMALL_BVLC, SMALL_TORCHVISION):
        monkeypatch.setitem(NETWORKS, network.name, network)


def same(one: TrainedModel, other: TrainedModel):
    """But for where it is: networks, bits, and what is known of them."""
    assert one.network == other.network
    assert one.classes == other.classes
    assert jax.tree.structure(one.params) == jax.tree.structure(other.params)
    assert all(map(np.array_equal, jax.tree.leaves(one.params), jax.tree.leaves(other.params)))
    assert np.array_equal(one.mean_image, other.mean_image)
    return True


def test_a_file_is_what_the_run_is(run, exported, rng):
    ours, trained = load(exported), load(run)
    assert same(ours, trained)
    assert (ours.config, ours.step, ours.versions) == (trained.config, 10, trained.versions)
    images = rng.integers(0, 256, (3, 32, 32, 3), np.uint8)
    assert np.array_equal(Predictor(ours)(images), Predictor(trained)(images))
    with safe_open(exported, framework="numpy") as file:
        assert json.loads(file.metadata()["classes"]) == ["above", "below"]
        assert json.loads(file.metadata()["network"])["name"] == "tiny"
    again = export(Export(exported, exported.with_name("again.safetensors")))
    assert same(load(again), ours)


def test_by_way_of_pytorch_it_stays_the_same(run, tmp_path):
    file = export(Export(run, tmp_path / "pytorch.safetensors", layout="pytorch"))
    assert load_file(file)["mean_image"].shape == (3, 32, 32)
    with pytest.raises(UserError, match=r"pytorch.safetensors is no network in our layout: .*alexnet_jax import"):
        load(file)
    ours, trained = load(import_file(Import(file, tmp_path / "ours.safetensors"))), load(run)
    assert (ours.config, ours.step) == (trained.config, 10)
    # One of the eight units of two towers stands for no class where there are seven; here there are two.
    assert same(ours, trained)


def test_commands_take_it_for_a_run(exported, photos, tmp_path, monkeypatch, capsys):
    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["alexnet_jax", *map(str, arguments)])
        cli.main()
        return capsys.readouterr().out

    beside = exported.with_suffix("")
    assert str(beside / "evaluation") in command("evaluate", exported)
    command("figures", exported)
    assert (beside / "report.html").exists()
    assert not (beside / "curves.png").exists(), "a file knows nothing of its training"
    command("index", exported, "--to", tmp_path / "index")
    photo = next(photos.rglob("above/*.jpg"))
    assert command("retrieve", tmp_path / "index", photo).count(str(photo)) == 6
    assert str(tmp_path / "b.safetensors") in command("export", exported, "--to", tmp_path / "b.safetensors")


def test_torchvisions_alexnet_comes_in_and_goes_out(small_networks, tmp_path):
    arrays = to_torchvision(to_state_dict(SMALL_TORCHVISION, random_params(SMALL_TORCHVISION)))
    save_file(arrays, tmp_path / "theirs.safetensors")
    (tmp_path / "names.txt").write_text("".join(f"class {number}\n" for number in range(6)))
    ours = import_file(
        Import(
            tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors", "torchvision_alexnet", classes=tmp_path / "names.txt"
        )
    )
    trained = load(ours)
    assert trained.classes[5] == "class 5"
    assert (trained.mean_image == np.array([123.675, 116.28, 103.53], np.float32)).all()
    back = load_file(export(Export(ours, tmp_path / "back.safetensors", layout="torchvision")))
    assert list(back) == sorted(arrays)
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())
    save(replace(trained, mean_image=np.random.default_rng(0).uniform(size=(256, 256, 3)).astype(np.float32)), ours)
    refused("torchvision subtracts one mean per color", Export(ours, tmp_path / "x.safetensors", layout="torchvision"))


def test_caffes_networks_come_in(small_networks, tmp_path):
    params = random_params(SMALL_BVLC)
    file = tmp_path / "bvlc_alexnet.caffemodel"
    file.write_bytes(caffemodel(to_state_dict(SMALL_BVLC, with_red_first(params))))
    mean = np.random.default_rng(0).uniform(0, 255, (3, 128, 128)).astype(np.float32)
    np.save(tmp_path / "mean.npy", mean)
    to = tmp_path / "ours.safetensors"
    trained = load(import_file(Import(file, to, "bvlc_alexnet", mean=tmp_path / "mean.npy")))
    assert all(map(np.array_equal, jax.tree.leaves(trained.params), jax.tree.leaves(params)))
    assert np.array_equal(trained.mean_image[..., 0], mean[2]), "red comes last in theirs"
    assert trained.image_size == 128
    assert trained.classes == list("012345")
    assert load(import_file(Import(file, to, "bvlc_alexnet"))).mean_image[0, 0].tolist() == [123, 117, 104]
    refused("does not say which network it is: add --network, one of two_tower", Import(file, to))
    refused("conv1.weight of .* is 8×3×11×11, where", Import(file, to, "two_tower"))


def refused(message: str, command: Export | Import):
    before = set(command.to.parent.iterdir())
    with pytest.raises(UserError, match=message) as error:
        export(command) if isinstance(command, Export) else import_file(command)
    assert "\n" not in str(error.value)
    assert set(command.to.parent.iterdir()) == before, "nothing is half written"


def test_what_cannot_be_is_refused(run, exported, tmp_path):
    to = tmp_path / "never.safetensors"
    refused("tiny is not torchvision's alexnet: use --layout pytorch", Export(run, to, layout="torchvision"))
    refused(r"never.pt should end in .safetensors", Export(run, tmp_path / "never.pt"))
    refused("is neither the folder of a run", Export(tmp_path / "nowhere", to))
    refused("nowhere.safetensors cannot be read: ", Export(tmp_path / "nowhere.safetensors", to))
    refused("nowhere.pt is not there", Import(tmp_path / "nowhere.pt", to))
    refused("is in our layout already", Import(exported, to))
    theirs = export(Export(run, tmp_path / "theirs.safetensors", layout="pytorch"))
    (tmp_path / "names.txt").write_text("one\n")
    refused("names 1 classes, and the network has 2", Import(theirs, to, classes=tmp_path / "names.txt"))
    arrays = load_file(theirs)
    del arrays["mean_image"]
    save_file(arrays, tmp_path / "plain.safetensors")
    refused("does not say which network it is", Import(tmp_path / "plain.safetensors", to))
    refused("plain.safetensors misses", Import(tmp_path / "plain.safetensors", to, "two_tower"))


def test_damaged_files_are_refused(exported, tmp_path):
    content = exported.read_bytes()
    damaged = tmp_path / "damaged.safetensors"

    def told(content):
        damaged.write_bytes(content)
        with pytest.raises(UserError) as error:
            load(damaged)
        assert "\n" not in str(error.value)
        return str(error.value)

    for size in (0, 4, 100, len(content) // 2, len(content) - 1):
        assert "damaged.safetensors cannot be read" in told(content[:size])
    tensors = load_file(exported)
    with safe_open(exported, framework="numpy") as file:
        metadata = file.metadata()

    def saved(tensors, metadata):
        save_file(tensors, damaged, metadata)
        return told(damaged.read_bytes())

    assert "is no network in our layout" in saved(tensors, None)
    assert "does not say what its config is" in saved(tensors, {**metadata, "config": "{"})
    assert "conv1.bias of" in saved({**tensors, "conv1.bias": np.zeros((2, 5), np.float32)}, metadata)
    assert "holds what the network has not: more" in saved({**tensors, "more": np.zeros(1, np.float32)}, metadata)
    del tensors["mean_image"]
    assert "misses mean_image" in saved(tensors, metadata)


def test_a_full_disk_leaves_what_was_there(run, exported, monkeypatch):
    from alexnet_jax import files

    before = exported.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.Path, "write_bytes", full)
    refused("no room left on the disk for .*tiny.safetensors", Export(run, exported))
    assert exported.read_bytes() == before
