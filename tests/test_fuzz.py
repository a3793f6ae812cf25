"""Fuzz test of every reader of files: whatever is flipped or cut, the file is read, or refused in one line.

The readers run in one process with a limit of its memory and of the time of each file.
"""

import json
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from alexnet_jax.cli.export import Export, export
from alexnet_jax.data.records import open_dataset
from alexnet_jax.data.sources.held_out import ValidationSplit
from alexnet_jax.data.sources.registry import find_source
from alexnet_jax.errors import UserError
from alexnet_jax.model.catalog import NETWORKS
from alexnet_jax.model.summary import summarize
from alexnet_jax.weights import state_dict
from alexnet_jax.weights.import_weights import import_weights
from alexnet_jax.weights.means import read_mean_image
from alexnet_jax.weights.state_dict import to_state_dict
from alexnet_jax.weights.trained_model import initialize, load, save
from tests.data.sources.archives import ilsvrc_archives, write_files
from tests.tiny import TINY
from tests.weights.caffemodel import blob, caffemodel
from tests.weights.torch_files import torch_file

CHANGES = 60
"""Number of changed files of each format."""
MAX_SECONDS, MAX_BYTES = 10, 3 << 30
"""Limits of one file: seconds, and address space beyond that in use."""


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """A valid file of each format, by the name of its reader."""
    root = tmp_path_factory.mktemp("samples")
    model = initialize(TINY, image_size=32)
    save(model, root / "ours.safetensors")
    export(Export(root / "ours.safetensors", root / "theirs.safetensors", layout="pytorch"))
    arrays = to_state_dict(TINY, model.params)
    caffe = {name.replace(".weight", "_w").replace(".bias", "_b"): array for name, array in arrays.items()}
    np.savez(root / "net.npz", allow_pickle=False, **caffe)
    kernels = {
        name: [np.concatenate(list(layer[kind]), -1) for kind in ("kernel", "bias")] for name, layer in model.params.items()
    }
    kernels["fc7"] = [array[..., :7] for array in kernels["fc7"]]
    np.save(root / "net.npy", np.array(kernels, dtype=object))
    (root / "net.caffemodel").write_bytes(caffemodel(arrays))
    (root / "net.pth").write_bytes(torch_file({"state_dict": arrays, "epoch": 3}))
    (root / "legacy.pth").write_bytes(torch_file(arrays, legacy=True))
    np.save(root / "mean.npy", model.mean_image)
    (root / "mean.binaryproto").write_bytes(blob(np.ascontiguousarray(model.mean_image.transpose(2, 0, 1)), legacy=True))
    return root


SUMMARIES = {}


def cached_summarize(network):
    """Return the summary of a network, whose computation would take most of the time."""
    key = json.dumps(network.to_json())
    if key not in SUMMARIES:
        SUMMARIES[key] = summarize(network)
    return SUMMARIES[key]


def read_weights(path):
    import_weights(path, None if path.name == "theirs.safetensors" else "tiny", mean=path.parent / "valid.npy", image_size=32)


def read_mean(path):
    mean = read_mean_image(path, 32)
    assert np.isfinite(mean).all()
    assert 0 <= mean.min() <= mean.max() <= 255


def read_model(path):
    model = load(path)
    assert len(model.classes) == model.network.num_classes
    assert model.mean_image.shape == (model.image_size, model.image_size, 3)
    assert np.isfinite(model.mean_image).all()


READERS = {
    "ours.safetensors": read_model,
    "theirs.safetensors": read_weights,
    "net.npz": read_weights,
    "net.npy": read_weights,
    "net.h5": read_weights,
    "net.caffemodel": read_weights,
    "net.pth": read_weights,
    "legacy.pth": read_weights,
    "mean.npy": read_mean,
    "mean.binaryproto": read_mean,
}


def changed(content, rng, header):
    """Return the content with a bit or several bytes changed, mostly in its header, or cut."""
    kind, position = rng.integers(4), int(rng.integers(len(content) if rng.random() < 0.3 else min(header, len(content))))
    if kind == 0:
        return content[:position]
    length = int(rng.integers(1, 9)) if kind == 3 else 1
    new = bytes([content[position] ^ 1 << int(rng.integers(8))]) if kind == 1 else rng.bytes(length)
    return content[:position] + new + content[position + len(new) :]


def assert_read_or_refused(read, path):
    def too_slow(*_):
        raise AssertionError(f"{path} takes more than {MAX_SECONDS} seconds")

    previous = signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(MAX_SECONDS)
    message = ""
    try:
        read(path)
    except UserError as error:
        message = str(error)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    assert "\n" not in message
    assert "\x1b" not in message
    assert len(message) < 2000


@pytest.fixture
def limited_memory():
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MAX_BYTES, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore")
def test_changed_files_are_read_or_refused(samples, tmp_path, monkeypatch, limited_memory, name):
    monkeypatch.setitem(NETWORKS, "tiny", TINY)
    monkeypatch.setattr(state_dict, "summarize", cached_summarize)
    np.save(tmp_path / "valid.npy", np.full((32, 32, 3), 128, np.float32))
    if name == "net.h5":
        h5py = pytest.importorskip("h5py", reason="h5py is not installed")
        with h5py.File(samples / name, "w") as file:
            for key, array in to_state_dict(TINY, load(samples / "ours.safetensors").params).items():
                layer, kind = key.split(".")
                file[f"data/{layer}/{'01'[kind == 'bias']}"] = array
    content, path, rng = (samples / name).read_bytes(), tmp_path / name, np.random.default_rng(len(name))
    path.write_bytes(content)
    READERS[name](path)
    header = 8 + int.from_bytes(content[:8], "little") if name.endswith("safetensors") else 2000
    for _ in range(CHANGES):
        path.write_bytes(changed(content, rng, header))
        assert_read_or_refused(READERS[name], path)


def change_json(value, rng):
    """Return a JSON value with one of its parts replaced, removed or moved."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = list(value)[rng.integers(len(value))]
        kept = {name: item for name, item in value.items() if name == key or rng.random() < 0.95}
        return {name: change_json(item, rng) if name == key else item for name, item in kept.items()}
    if isinstance(value, list) and value and rng.random() < 0.7:
        index = int(rng.integers(len(value)))
        return [change_json(item, rng) if i == index else item for i, item in enumerate(value)]
    return [None, -1, 0, 10**12, 0.5, float("nan"), "x", "", [], {}, [[]], {"x": 1}, True][rng.integers(13)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_changed_manifests_and_configs_are_read_or_refused(samples, tmp_path, limited_memory):
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    from alexnet_jax.data.prepare.convert import PrepareOptions, prepare_path

    rng = np.random.default_rng(0)
    archives = {name: content for name, content in ilsvrc_archives().items() if "train" in name}
    dataset = prepare_path(write_files(tmp_path / "photos", archives), tmp_path / "data", PrepareOptions(size=8))
    manifest = json.loads((dataset.path / "manifest.json").read_text())
    for _ in range(2 * CHANGES):
        (dataset.path / "manifest.json").write_text(json.dumps(change_json(manifest, rng)))
        assert_read_or_refused(open_dataset, dataset.path)
    tensors = load_file(samples / "ours.safetensors")
    with safe_open(samples / "ours.safetensors", "numpy") as file:
        metadata = file.metadata()
    for _ in range(CHANGES):
        key = ("config", "network", "classes", "step", "versions")[rng.choice(5, p=(0.6, 0.1, 0.1, 0.1, 0.1))]
        new = json.dumps(change_json(json.loads(metadata[key]), rng))
        save_file(tensors, tmp_path / "model.safetensors", {**metadata, key: new})
        assert_read_or_refused(read_model, tmp_path / "model.safetensors")


@pytest.mark.slow
def test_changed_archives_are_read_or_refused(tmp_path):
    content, rng = ilsvrc_archives()["ILSVRC2012_img_train.tar"], np.random.default_rng(0)
    for _ in range(CHANGES):
        (tmp_path / "train.tar").write_bytes(changed(content, rng, len(content)))
        assert_read_or_refused(lambda path: find_source(str(path), ValidationSplit()), tmp_path / "train.tar")
