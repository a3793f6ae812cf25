"""Weights that come from PyTorch, torchvision or Caffe, or go there, make the same of an image here and there."""

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
from alexnet_jax.errors import UserError
from alexnet_jax.parallel import placement
from alexnet_jax.weights.caffe import with_red_first
from alexnet_jax.weights.state_dict import from_state_dict, shapes, to_state_dict
from alexnet_jax.weights.trained_model import TrainedModel, load, save
from tests.conftest import mesh_of
from tests.tiny import TINY
from tests.weights.caffemodel import caffemodel
from tests.weights.small import SMALL_BVLC, SMALL_CAFFENET, SMALL_TORCHVISION, SMALL_TWO_TOWER, random_params, small

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make parity installs it")
from tests.parity import others, transcription  # noqa: E402


@pytest.fixture
def networks(request, monkeypatch):
    """`NETWORKS`, full or with small ones in the place of those of others."""
    if request.param == "small":
        for network in (SMALL_BVLC, SMALL_CAFFENET, SMALL_TORCHVISION):
            monkeypatch.setitem(NETWORKS, network.name, network)
    return NETWORKS


sizes = pytest.mark.parametrize("networks", ["small", pytest.param("full", marks=pytest.mark.slow)], indirect=True)


def pixels(network, images=2):
    return np.random.default_rng(1).integers(0, 256, (images, network.input_size, network.input_size, 3)).astype(np.float32)


def logits(trained, images):
    """Ours, of pixels, with the center of the mean image subtracted."""
    network = trained.network
    border = (len(trained.mean_image) - network.input_size) // 2
    mean = trained.mean_image[border : border + network.input_size, border : border + network.input_size]
    forward = jax.jit(placement.forward(network, mesh_of(network, 1, split=False)))
    return np.asarray(forward(trained.params, jnp.asarray(images - mean), None))


def channels_first(images):
    return torch.tensor(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def equal(ours, theirs):
    theirs = theirs.detach().numpy()
    assert theirs.std() > 0.01, "an image has an effect"
    assert np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) < 1e-5


@sizes
@pytest.mark.parametrize("name", ["bvlc_alexnet", "caffenet"])
def test_caffe(networks, name, tmp_path):
    network = networks[name]
    arrays = to_state_dict(network, random_params(network))  # as Caffe has them: channel 0 is blue
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(arrays, first_form=True, legacy=True))
    trained = load(import_file(Import(tmp_path / "net.caffemodel", tmp_path / "ours.safetensors", name)))
    images = pixels(network)
    seen = channels_first(images[..., ::-1]) - torch.tensor([104.0, 117.0, 123.0])[:, None, None]
    w = {key: torch.tensor(array) for key, array in arrays.items()}
    equal(logits(trained, images), others.caffe(w, seen, pool_first=name == "caffenet"))


@sizes
def test_torchvision(networks, tmp_path):
    network = networks["torchvision_alexnet"]
    wanted = shapes(network)
    widths = [wanted[f"{layer}.bias"][0] for layer in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")]
    pooled = round((wanted["fc6.weight"][1] / widths[4]) ** 0.5)
    theirs = others.TorchvisionAlexNet(widths, network.num_classes, pooled).eval()
    assert sum(p.numel() for p in theirs.parameters()) == sum(map(prod, wanted.values()))
    drawn = to_state_dict(network, random_params(network))
    theirs.load_state_dict({name: torch.tensor(drawn[ours]) for name, ours in zip(theirs.state_dict(), drawn, strict=True)})
    torch.save(theirs.state_dict(), tmp_path / "alexnet.pth")
    ours = import_file(Import(tmp_path / "alexnet.pth", tmp_path / "ours.safetensors", "torchvision_alexnet"))
    images = pixels(network)
    mean, std = (torch.tensor(values)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    equal(logits(load(ours), images), theirs((channels_first(images) / 255 - mean) / std))
    back = load_file(export(Export(ours, tmp_path / "back.safetensors", layout="torchvision")))
    assert back.keys() == theirs.state_dict().keys()
    assert all(np.array_equal(back[name], tensor.numpy()) for name, tensor in theirs.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("network", [TWO_TOWER, SOURCE_145], ids=lambda network: network.name)
def test_towers_as_groups(network):
    params = random_params(network)
    w = {}
    for name, array in to_state_dict(network, params).items():
        w.setdefault(name.split(".")[0], []).append(torch.tensor(array))
    images = pixels(network) - 128
    forward = jax.jit(placement.forward(network, mesh_of(network, 1, split=False)))
    equal(np.asarray(forward(params, images, None)), getattr(transcription, network.name)(w, channels_first(images)))


EXPORTED = [
    TINY, SMALL_TWO_TOWER, small(SOURCE_145, 96), small(NETWORKS["one_gpu"], 96), SMALL_BVLC, SMALL_CAFFENET, SMALL_TORCHVISION,
    NETWORKS["quickstart"], pytest.param(TWO_TOWER, marks=pytest.mark.slow),
]  # fmt: skip


@pytest.mark.parametrize("network", EXPORTED, ids=lambda network: f"{network.name} {network.input_size}")
def test_an_exported_network_in_pytorch(network, tmp_path, monkeypatch):
    from tests.experiments.test_result_tables import ROOT

    monkeypatch.syspath_prepend(ROOT / "experiments" / "benchmarks")
    import pytorch_network  # pyright: ignore[reportMissingImports]  (in experiments/)

    size = network.input_size + 9
    mean = np.random.default_rng(2).uniform(100, 150, (size, size, 3)).astype(np.float32)
    config = {"network": network.to_json(), "augmentation": {"image_size": size, "mean": "crop"}}
    config["data"] = {"path": "nowhere", "classes": [str(number) for number in range(network.num_classes)]}
    trained = TrainedModel(tmp_path, 3, network, random_params(network), mean, config, {})
    save(trained, tmp_path / "ours.safetensors")
    file = export(Export(tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors", layout="pytorch"))
    theirs = pytorch_network.load(file).eval()
    images = pixels(network)
    equal(logits(trained, images), theirs(channels_first(images)))

    # And back, from what PyTorch saves: the same bits, but for units that stand for no class.
    again = from_state_dict(network, to_state_dict(network, trained.params), "it")
    torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
    monkeypatch.setitem(NETWORKS, network.name, replace(network))
    back = load(import_file(Import(tmp_path / "theirs.pt", tmp_path / "back.safetensors", network.name)))
    assert all(map(np.array_equal, jax.tree.leaves(back.params), jax.tree.leaves(again)))
    assert np.array_equal(back.mean_image, mean)


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_a_pickle_is_not_run(tmp_path):
    def refused(message):
        with pytest.raises(UserError, match=message) as error:
            import_file(Import(tmp_path / "net.pt", tmp_path / "never.safetensors", "bvlc_alexnet"))
        assert "\n" not in str(error.value)

    torch.save({"conv1.weight": Trap()}, tmp_path / "net.pt")
    refused("net.pt cannot be read")
    (tmp_path / "net.pt").write_bytes(b"nothing")
    refused("net.pt cannot be read")
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "net.pt")
    refused("net.pt is no state dict: ")
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "net.pt")
    content = (tmp_path / "net.pt").read_bytes()
    (tmp_path / "net.pt").write_bytes(content[: len(content) // 2])
    refused("net.pt cannot be read")


def test_blue_comes_first_in_caffe_only():
    params = random_params(SMALL_BVLC)
    turned = with_red_first(params)
    assert np.array_equal(turned["conv1"]["kernel"][..., 0, :], params["conv1"]["kernel"][..., 2, :])
    assert turned["conv2"] is params["conv2"]
