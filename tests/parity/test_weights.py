"""Tests that networks imported from or exported to PyTorch, torchvision and Caffe have the same logits."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from alexnet_jax import NETWORKS, SOURCE_145, TWO_TOWER
from alexnet_jax.cli.export import Export, export
from alexnet_jax.cli.import_weights import Import, import_file
from alexnet_jax.data.images import center_crop_image
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.predictor import Predictor
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
    size = network.input_size + 9
    mean = np.random.default_rng(2).uniform(100, 150, (size, size, 3)).astype(np.float32)
    data = DataRecord("nowhere", {}, [str(number) for number in range(network.num_classes)])
    config = RunConfig(network, Augmentation(image_size=size, mean="crop"), data)
    model = TrainedModel(tmp_path, 3, random_params(network), mean, config, {})
    save(model, tmp_path / "ours.safetensors")
    file = export(Export(tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors", layout="pytorch"))
    theirs = import_module(file.with_suffix(".py")).load().eval()
    images = pixels(network)
    assert_logits_close(logits(model, images), theirs(channels_first(images)))

    # A state dict saved by PyTorch is imported bit-identically, except for padding units.
    expected = from_state_dict(network, to_state_dict(network, model.params), "state dict")
    torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
    monkeypatch.setitem(NETWORKS, network.name, replace(network))
    imported = load(import_file(Import(tmp_path / "theirs.pt", tmp_path / "back.safetensors", network.name)))
    assert all(map(np.array_equal, jax.tree.leaves(imported.params), jax.tree.leaves(expected)))
    assert np.array_equal(imported.mean_image, mean)


def import_module(file):
    """Import the Python file that was written beside an exported file."""
    spec = importlib.util.spec_from_file_location("exported", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def photos(rng):
    """Return photos of several modes and shapes, larger and smaller than the images of the network."""
    smooth = Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8)).resize((150, 210), Image.Resampling.BICUBIC)
    alpha = smooth.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    rotated = smooth.copy()
    rotated.getexif()[0x0112] = 6
    gray16 = Image.fromarray(rng.integers(0, 1 << 16, (60, 50), np.uint16))
    return {
        "portrait": smooth, "landscape": smooth.rotate(90, expand=True), "small": smooth.resize((23, 17)), "rotated": rotated,
        "gray": smooth.convert("L"), "16 bits": gray16, "palette": smooth.quantize(32), "CMYK": smooth.convert("CMYK"),
        "transparent": alpha,
    }  # fmt: skip


def test_preprocessing_of_the_exported_module_equals_predictor(tmp_path, rng):
    """Compare the pixels, which are equal, and the probabilities of photos; the exported module needs no JAX."""
    size = TINY.input_size + 9
    mean = rng.uniform(100, 150, (size, size, 3)).astype(np.float32)
    data = DataRecord("nowhere", {}, [f"class {label}" for label in range(7)])
    model = TrainedModel(tmp_path, 3, random_params(TINY), mean, RunConfig(TINY, Augmentation(image_size=size), data), {})
    save(model, tmp_path / "ours.safetensors")
    file = export(Export(tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors", layout="pytorch"))
    module = import_module(file.with_suffix(".py")).load().eval()
    assert module.classes == model.classes
    predictor, border = Predictor(model), (size - TINY.input_size) // 2
    for name, photo in photos(rng).items():
        pixels = module.preprocess(photo)
        square = center_crop_image(photo, size)[border : border + TINY.input_size, border : border + TINY.input_size]
        np.testing.assert_array_equal(pixels.numpy(), square.transpose(2, 0, 1), err_msg=name)
        with torch.no_grad():
            probabilities = module(pixels[None]).softmax(1)
        np.testing.assert_allclose(probabilities.numpy(), predictor(photo), atol=1e-5, err_msg=name)
    with pytest.raises(ValueError, match="32-bit pixels"):
        module.preprocess(Image.new("F", (50, 50)))

    # On the command line, in a process that cannot import this package or JAX.
    photos(rng)["portrait"].save(tmp_path / "photo.png")
    code = "import sys, runpy; sys.modules.update(jax=None, alexnet_jax=None, numpy=None); sys.argv.pop(0); "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-W", "ignore", "-c", code, str(file.with_suffix(".py")), str(tmp_path / "photo.png")]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    best = predictor.classify(tmp_path / "photo.png", top=1)[0][0]
    assert printed.startswith(f"{tmp_path / 'photo.png'}: {best.name} {best.probability:.1%}, class ")

    (tmp_path / "theirs.py").write_text("print('my own file')")
    with pytest.raises(UserError, match=r"theirs.py exists and is not a module of an earlier export: choose a different --to"):
        export(Export(tmp_path / "ours.safetensors", file, layout="pytorch"))


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
