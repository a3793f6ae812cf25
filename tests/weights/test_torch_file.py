"""Tests of the reader of PyTorch's files, on files written without PyTorch; tests/parity compares with PyTorch."""

import argparse
import json
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from alexnet_jax.errors import UserError
from alexnet_jax.pickles import PickleError, load_arrays
from alexnet_jax.weights.file_format import weights_format
from alexnet_jax.weights.pytorch import TORCHVISION, read_pytorch
from tests.weights.torch_files import torch_file

RNG = np.random.default_rng(0)
ARRAYS = {
    f"{layer}.{kind}": RNG.normal(size=(3, 2) if kind == "weight" else 3).astype(np.float32)
    for layer in TORCHVISION
    for kind in ("weight", "bias")
}


def torchvision_names():
    layers = {name: TORCHVISION[name.split(".")[0]] + "." + name.split(".")[1] for name in ARRAYS}
    return {layers[name]: array for name, array in ARRAYS.items()}


def read(path):
    return read_pytorch(path, weights_format(path))[0]


def assert_equal(arrays, expected=ARRAYS):
    assert arrays.keys() == expected.keys()
    assert all(np.array_equal(array, expected[name]) for name, array in arrays.items())


class Arguments(argparse.Namespace):
    pass


FORMS = {
    "plain": ARRAYS,
    "wrapped twice": {f"_orig_mod.module.{name}": array for name, array in ARRAYS.items()},
    "attribute": {f"net.backbone.{name}": array for name, array in ARRAYS.items()},
    "torchvision": torchvision_names(),
    "parallel features": {
        name.replace("features.", "features.module.").replace("classifier.", "module.classifier."): array
        for name, array in torchvision_names().items()
    },
    "checkpoint": {"epoch": 3, "best": 0.5, "model_state_dict": ARRAYS, "optimizer": {"state": {0: {"m": ARRAYS["fc8.bias"]}}}},
    "arguments": {"net": ARRAYS, "args": argparse.Namespace(lr=0.1), "history": [1, (2, None)], "seed": np.float64(3)},
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_same_state_dict(tmp_path, form, legacy):
    file = tmp_path / "file.of.any.name"
    file.write_bytes(torch_file(FORMS[form], legacy=legacy))
    assert_equal(read(file))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_protocols_and_dtypes(tmp_path, protocol, dtype):
    arrays = {name: array.astype(dtype) for name, array in ARRAYS.items()}
    arrays["conv1.weight"] = np.asfortranarray(arrays["conv1.weight"])
    (tmp_path / "a.bin").write_bytes(torch_file(arrays, protocol=protocol))
    assert_equal(read(tmp_path / "a.bin"), arrays)


SAVE = {
    "torch": lambda file, arrays: file.write_bytes(torch_file(arrays)),
    "safetensors": lambda file, arrays: save_file(arrays, file),
}


@pytest.mark.parametrize("save", SAVE.values(), ids=SAVE)
def test_shards(tmp_path, save):
    names = list(ARRAYS)
    files = {name: f"part{i % 3}" for i, name in enumerate(names)}
    for file in set(files.values()):
        save(tmp_path / file, {name: ARRAYS[name] for name in names if files[name] == file})
    index = tmp_path / "net.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    assert_equal(read(tmp_path))
    assert_equal(read(index))
    for weight_map, message in (
        ({**files, "conv1.weight": "part1"}, r"do not list the same arrays \(conv1.weight\)"),
        ({**files, "conv1.weight": "../part0"}, "does not name files in the same folder"),
        ({**files, "conv1.weight": "part9"}, "do not list the same arrays|part9 does not exist"),
        ({}, "is damaged"),
        ([], "is damaged"),
    ):
        index.write_text(json.dumps({"weight_map": weight_map}))
        assert_refused(message, index)


def assert_refused(message, file):
    with pytest.raises(UserError, match=message) as error:
        read(file)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"model": ARRAYS, "ema": ARRAYS}, r"contains several state dicts \(model, ema\)"),
        ({"epoch": 3, "lr": 0.1}, "is not a state dict, and contains none under .*, only epoch, lr"),
        (argparse.Namespace(x=1), "is not a state dict"),
        ({}, "is not a state dict"),
        ({"module.fc8.bias": ARRAYS["fc8.bias"], "fc8.bias": ARRAYS["fc8.bias"]}, "contains a layer twice"),
    ],
)
def test_other_contents_are_named(tmp_path, value, message):
    (tmp_path / "net.pth").write_bytes(torch_file(value))
    assert_refused(message, tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b" \n<HTML>no", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        (b"", "is empty"),
        (b"PK\x03\x04", "download it again"),
        (b"\x00\x01\x02 text", "is not a supported file"),
    ],
)
def test_other_files_are_named(tmp_path, content, message):
    (tmp_path / "net.pth").write_bytes(content)
    assert_refused(message, tmp_path / "net.pth")


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([os.system, eval, exec, os.remove, np.fromfile, getattr, __import__, bytearray]),
    st.text(max_size=5),
    st.sampled_from(range(6)),
)
def test_pickles_call_nothing(function, argument, protocol):
    value = {"conv1": [np.zeros(3), Call(function, f"open('/nowhere/{argument}')")]}
    with pytest.raises(PickleError, match=r"^the pickle calls .*, which is not allowed$"):
        load_arrays(pickle.dumps(value, protocol))
    loaded = load_arrays(pickle.dumps(value, protocol), ignore_unknown=True)
    assert np.array_equal(loaded["conv1"][0] if protocol else np.zeros(3), np.zeros(3))


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(range(2, 6)),
    st.sampled_from(["<f4", ">f8", "<i2", "|u1", "<f2"]),
)
def test_plain_values_and_arrays_are_read_exactly(value, protocol, dtype):
    array = np.asfortranarray(RNG.normal(size=(2, 3)).astype(dtype))
    loaded, arrays = load_arrays(pickle.dumps([value, {"x": array, "again": array}], protocol))
    assert loaded == value
    assert np.array_equal(arrays["x"], array)
    assert arrays["x"].dtype == array.dtype
    assert arrays["again"] is arrays["x"]
