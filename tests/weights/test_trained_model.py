"""A trained network, opened again."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest

from alexnet_jax.data.pipeline.augment import center_crop
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.parallel import placement
from alexnet_jax.training.loop import train
from alexnet_jax.weights.trained_model import load
from tests.conftest import TINY_CONFIG, mesh_of


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    from alexnet_jax.training.loop import Options

    folder = tmp_path_factory.mktemp("trained")
    options = Options(data=str(photos), data_dir=photos.parent / "data", runs_dir=folder / "runs", devices=2)
    return train("tiny", replace(TINY_CONFIG, epochs=4), options)


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def test_it_is_what_was_trained(run):
    trained = load(run)
    assert trained.step == 40
    assert trained.network == TINY_CONFIG.network.with_num_classes(2)
    assert trained.classes == ["above", "below"]
    assert trained.image_size == 32
    assert load(run / "checkpoints" / "40").params.keys() == trained.params.keys()
    assert load(run, best=True).step in {10, 20, 30, 40}


def test_it_makes_of_images_what_it_made_in_training(run, rng):
    trained, images = load(run), rng.integers(0, 256, (5, 32, 32, 3), np.uint8)
    network = trained.network
    mesh = mesh_of(network, 1, split=False)
    seen = center_crop(images.astype(np.float32) - trained.mean_image, 29)
    logits = jax.jit(placement.forward(network, mesh))(trained.params, seen, None)
    ours = Predictor(trained, batch_size=2)(images)
    np.testing.assert_allclose(ours, jax.nn.softmax(logits), rtol=1e-4, atol=1e-6)


def test_features_of_a_layer_are_those_of_both_towers(run, rng):
    trained, images = load(run), rng.integers(0, 256, (3, 32, 32, 3), np.uint8)
    hidden = Predictor(trained, layer="fc6/drop")(images)
    assert hidden.shape == (3, 16)
    probabilities = Predictor(trained)(images)
    # The last layer reads all of them, tower 0 first.
    fc7 = trained.params["fc7"]
    logits = np.concatenate([hidden @ kernel + bias for kernel, bias in zip(fc7["kernel"], fc7["bias"], strict=True)], axis=1)
    np.testing.assert_allclose(jax.nn.softmax(logits), probabilities, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_opened_is_named(copy, tmp_path):
    with pytest.raises(UserError, match="neither the folder of a run"):
        load(tmp_path / "nowhere")
    (copy / "mean_image.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"mean_image.npy cannot be read"):
        load(copy)
    (copy / "mean_image.npy").unlink()
    with pytest.raises(UserError, match=r"mean_image.npy cannot be read"):
        load(copy)


def test_damage_is_found(copy):
    state = copy / "checkpoints" / "40" / "state"
    for file in [file for file in state.rglob("*") if file.is_file() and file.stat().st_size > 1000]:
        content = bytearray(file.read_bytes())
        for place in range(0, len(content), 50):
            content[place] ^= 255
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"the checkpoint .*/40 cannot be read"):
        load(copy)


def test_the_log_has_the_training_error(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    errors = [line["training_error"] for line in lines if "epoch" in line]
    assert len(errors) == 4
    assert all(0 <= error <= 1 for error in errors)
    assert errors[-1] < errors[0]
