"""Tests that networks imported from or exported to PyTorch, torchvision and Caffe have the same logits."""

from dataclasses import replace
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from alexnet_jax import NETWORKS, SOURCE_145, TWO_TOWER
from alexnet_jax.cli.export import Export, export
from alexnet_jax.cli.import_weights import Import, import_file
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.errors import UserError
from alexnet_jax.parallel import placement
from alexnet_jax.training.run_config import DataRecord, RunConfig
from alexnet_jax.weights.caffe import swap_bgr_rgb
from alexnet_jax.weights.state_dict import from_state_dict, state_dict_shapes, to_state_dict
from alexnet_jax.weights.trained_model import TrainedModel, load, save
from tests.conftest import cpu_mesh
from tests.tiny import TINY
from tests.weights.caffemodel import caffemodel
from tests.weights.small import SMALL_BVLC, SMALL_CAFFENET, SMALL_TORCHVISION, SMALL_TWO_TOWER, random_params, small

torch = pytest.importorskip("torch", reason="PyTorch is not installed; make parity installs it")
from tests.parity import others, transcription  # noqa: E402


@pytest.fixture
def networks(request, monkeypatch):
    """`NETWORKS` with the Caffe and torchvision networks at full size, or replaced by small versions."""
    if request.param == "small":
        for network in (SMALL_BVLC, SMALL_CAFFENET, SMALL_TORCHVISION):
            monkeypatch.setitem(NETWORKS, network.name, network)
    return NETWORKS


sizes = pytest.mark.parametrize("networks", ["small", pytest.param("full", marks=pytest.mark.slow)], indirect=True)


def pixels(network, images=2):
    return np.random.default_rng(1).integers(0, 256, (images, network.input_size, network.input_size, 3)).astype(np.float32)


def logits(model, images):
    """Return the logits of a trained model for images with values 0 to 255, after subtracting the center of the mean image."""
    network = model.network
    border = (len(model.mean_image) - network.input_size) // 2
    mean = model.mean_image[border : border + network.input_size, border : border + network.input_size]
    forward = jax.jit(placement.forward(network, cpu_mesh(network, 1, split=False)))
    return np.asarray(forward(model.params, jnp.asarray(images - mean), None))


def channels_first(images):
    return torch.tensor(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def assert_logits_close(ours, theirs):
    theirs = theirs.detach().numpy()
    assert theirs.std() > 0.01, "logits depend on the image"
    assert np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) < 1e-5


@sizes
@pytest.mark.parametrize("name", ["bvlc_alexnet", "caffenet"])
def test_caffe(networks, name, tmp_path):
    network = networks[name]
    arrays = to_state_dict(network, random_params(network))  # as in Caffe, channel 0 is blue
    file_name = {"bvlc_alexnet": "AlexNet", "caffenet": "CaffeNet"}[name]
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(arrays, network=file_name, v1=True, legacy=True))
    model = load(import_file(Import(tmp_path / "net.caffemodel", tmp_path / "ours.safetensors", name)))
    images = pixels(network)
    caffe_images = channels_first(images[..., ::-1]) - torch.tensor([104.0, 117.0, 123.0])[:, None, None]
    w = {key: torch.tensor(array) for key, array in arrays.items()}
    assert_logits_close(logits(model, images), others.caffe(w, caffe_images, pool_first=name == "caffenet"))


@sizes
def test_torchvision(networks, tmp_path):
    network = networks["torchvision_alexnet"]
    shapes = state_dict_shapes(network)
    widths = [shapes[f"{layer}.bias"][0] for layer in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")]
    pooled = round((shapes["fc6.weight"][1] / widths[4]) ** 0.5)
    theirs = others.TorchvisionAlexNet(widths, network.num_classes, pooled).eval()
    assert sum(p.numel() for p in theirs.parameters()) == sum(map(prod, shapes.values()))
    state_dict = to_state_dict(network, random_params(network))
    theirs.load_state_dict(
        {name: torch.tensor(state_dict[ours]) for name, ours in zip(theirs.state_dict(), state_dict, strict=True)}
    )
    torch.save(theirs.state_dict(), tmp_path / "alexnet.pth")
    ours = import_file(Import(tmp_path / "alexnet.pth", tmp_path / "ours.safetensors", "torchvision_alexnet"))
    images = pixels(network)
    mean, std = (torch.tensor(values)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    assert_logits_close(logits(load(ours), images), theirs((channels_first(images) / 255 - mean) / std))
    exported = load_file(export(Export(ours, tmp_path / "back.safetensors", layout="torchvision")))
    assert exported.keys() == theirs.state_dict().keys()
    assert all(np.array_equal(exported[name], tensor.numpy()) for name, tensor in theirs.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("network", [TWO_TOWER, SOURCE_145], ids=lambda network: network.name)
def test_towers_as_groups(network):
    params = random_params(network)
    w = {}
    for name, array in to_state_dict(network, params).items():
        w.setdefault(name.split(".")[0], []).append(torch.tensor(array))
    images = pixels(network) - 128
    forward = jax.jit(placement.forward(network, cpu_mesh(network, 1, split=False)))
    assert_logits_close(
        np.asarray(forward(params, images, None)), getattr(transcription, network.name)(w, channels_first(images))
    )


EXPORTED = [
    TINY, SMALL_TWO_TOWER, small(SOURCE_145, 96), small(NETWORKS["one_gpu"], 96), SMALL_BVLC, SMALL_CAFFENET, SMALL_TORCHVISION,
    NETWORKS["quickstart"], pytest.param(TWO_TOWER, marks=pytest.mark.slow),
]  # fmt: skip


@pytest.mark.parametrize("network", EXPORTED, ids=lambda network: f"{network.name} {network.input_size}")
def test_exported_network_in_pytorch(network, tmp_path, monkeypatch):
    from tests.experiments.test_result_tables import ROOT

    monkeypatch.syspath_prepend(ROOT / "experiments" / "benchmarks")
    import pytorch_network  # pyright: ignore[reportMissingImports]  (in experiments/)

    size = network.input_size + 9
    mean = np.random.default_rng(2).uniform(100, 150, (size, size, 3)).astype(np.float32)
    data = DataRecord("nowhere", {}, [str(number) for number in range(network.num_classes)])
    config = RunConfig(network, Augmentation(image_size=size, mean="crop"), data)
    model = TrainedModel(tmp_path, 3, random_params(network), mean, config, {})
    save(model, tmp_path / "ours.safetensors")
    file = export(Export(tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors", layout="pytorch"))
    theirs = pytorch_network.load(file).eval()
    images = pixels(network)
    assert_logits_close(logits(model, images), theirs(channels_first(images)))

    # A state dict saved by PyTorch is imported bit-identically, except for padding units.
    expected = from_state_dict(network, to_state_dict(network, model.params), "state dict")
    torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
    monkeypatch.setitem(NETWORKS, network.name, replace(network))
    imported = load(import_file(Import(tmp_path / "theirs.pt", tmp_path / "back.safetensors", network.name)))
    assert all(map(np.array_equal, jax.tree.leaves(imported.params), jax.tree.leaves(expected)))
    assert np.array_equal(imported.mean_image, mean)


class MaliciousPickle:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was executed",))


def test_pickle_is_not_executed(tmp_path):
    def assert_raises(message):
        with pytest.raises(UserError, match=message) as error:
            import_file(Import(tmp_path / "net.pt", tmp_path / "out.safetensors", "bvlc_alexnet"))
        assert "\n" not in str(error.value)

    torch.save({"conv1.weight": MaliciousPickle()}, tmp_path / "net.pt")
    assert_raises("net.pt: the pickle is damaged or contains other objects than arrays|net.pt is not a state dict")
    (tmp_path / "net.pt").write_bytes(b"nothing")
    assert_raises("net.pt is not a supported file, or damaged")
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "net.pt")
    assert_raises("net.pt is not a state dict, and contains none under")
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "net.pt")
    content = (tmp_path / "net.pt").read_bytes()
    (tmp_path / "net.pt").write_bytes(content[: len(content) // 2])
    assert_raises("cannot read .*net.pt: ")


def test_swap_bgr_rgb_reverses_first_layer_only():
    params = random_params(SMALL_BVLC)
    swapped = swap_bgr_rgb(params)
    assert np.array_equal(swapped["conv1"]["kernel"][..., 0, :], params["conv1"]["kernel"][..., 2, :])
    assert swapped["conv2"] is params["conv2"]
