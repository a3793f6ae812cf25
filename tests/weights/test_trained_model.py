"""Tests of loading a trained model from a run."""

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
from alexnet_jax.training.train import train
from alexnet_jax.weights.trained_model import load
from tests.conftest import TINY_CONFIG, cpu_mesh


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    from alexnet_jax.training.config import Options

    folder = tmp_path_factory.mktemp("trained")
    options = Options(data=str(photos), data_dir=photos.parent / "data", runs_dir=folder / "runs", devices=2)
    return train("tiny", replace(TINY_CONFIG, epochs=4), options).run


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def test_loaded_model_matches_the_run(run):
    model = load(run)
    assert model.step == 40
    assert model.network == TINY_CONFIG.network.with_num_classes(2)
    assert model.classes == ["above", "below"]
    assert model.image_size == 32
    assert load(run / "checkpoints" / "40").params.keys() == model.params.keys()
    assert load(run, best=True).step in {10, 20, 30, 40}


def test_predictor_equals_the_forward_pass(run, rng):
    model, images = load(run), rng.integers(0, 256, (5, 32, 32, 3), np.uint8)
    network = model.network
    mesh = cpu_mesh(network, 1, split=False)
    crops = center_crop(images.astype(np.float32) - model.mean_image, 29)
    logits = jax.jit(placement.forward(network, mesh))(model.params, crops, None)
    probabilities = Predictor(model, batch_size=2)(images)
    np.testing.assert_allclose(probabilities, jax.nn.softmax(logits), rtol=1e-4, atol=1e-6)


def test_layer_outputs_contain_all_towers(run, rng):
    model, images = load(run), rng.integers(0, 256, (3, 32, 32, 3), np.uint8)
    hidden = Predictor(model, layer="fc6/drop")(images)
    assert hidden.shape == (3, 16)
    probabilities = Predictor(model)(images)
    # The last layer reads the units of all towers, tower 0 first.
    fc7 = model.params["fc7"]
    logits = np.concatenate([hidden @ kernel + bias for kernel, bias in zip(fc7["kernel"], fc7["bias"], strict=True)], axis=1)
    np.testing.assert_allclose(jax.nn.softmax(logits), probabilities, rtol=1e-4, atol=1e-6)


def test_load_error_names_the_missing_or_damaged_file(copy, tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist: pass a run folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no checkpoints: pass a run folder"):
        load(tmp_path)
    (copy / "mean_image.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"cannot read .*mean_image.npy"):
        load(copy)
    (copy / "mean_image.npy").unlink()
    with pytest.raises(UserError, match=r"cannot read .*mean_image.npy"):
        load(copy)


def test_damaged_checkpoint_is_rejected(copy):
    state = copy / "checkpoints" / "40" / "state"
    for file in [file for file in state.rglob("*") if file.is_file() and file.stat().st_size > 1000]:
        content = bytearray(file.read_bytes())
        for offset in range(0, len(content), 50):
            content[offset] ^= 255
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read the checkpoint .*/40 \(.*\): pass a different checkpoint"):
        load(copy)


def test_log_contains_the_training_error(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    errors = [line["training_error"] for line in lines if "epoch" in line]
    assert len(errors) == 4
    assert all(0 <= error <= 1 for error in errors)
    assert errors[-1] < errors[0]
