"""Tests of the readers of Caffe's files, on files written by the tests; no file written by Caffe was available."""

import pickle

import jax
import numpy as np
import pytest

from alexnet_jax.errors import UserError
from alexnet_jax.weights.caffe import read_caffe_weights, swap_bgr_rgb
from alexnet_jax.weights.file_format import weights_format
from alexnet_jax.weights.import_weights import import_weights
from alexnet_jax.weights.state_dict import from_state_dict, to_state_dict
from tests.weights.caffemodel import caffemodel, field
from tests.weights.small import SMALL_BVLC, random_params


@pytest.fixture(scope="module")
def params():
    return random_params(SMALL_BVLC)


@pytest.fixture(scope="module")
def caffe_arrays(params):
    """State dict of `params` for BGR images, as in Caffe's files."""
    return to_state_dict(SMALL_BVLC, swap_bgr_rgb(params))


def read(path):
    weights, _ = read_caffe_weights(path, weights_format(path))
    return swap_bgr_rgb(from_state_dict(SMALL_BVLC, weights, str(path)))


def trees_equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.mark.parametrize("v1", [False, True], ids=["layer", "layers"])
@pytest.mark.parametrize("legacy", [False, True], ids=["shape", "num, channels, height, width"])
def test_read_caffemodel(params, caffe_arrays, tmp_path, v1, legacy):
    file = tmp_path / "net.caffemodel"
    file.write_bytes(caffemodel(caffe_arrays, v1=v1, legacy=legacy))
    assert trees_equal(read(file), params)
    assert np.array_equal(caffe_arrays["conv1.weight"][:, 0], params["conv1"]["kernel"][0, ..., 2, :].transpose(2, 0, 1)), "BGR"


@pytest.mark.parametrize("options", [{"packed": False}, {"double": True}], ids=["unpacked", "doubles"])
def test_read_unpacked_and_double_data(params, caffe_arrays, tmp_path, options):
    file = tmp_path / "net.caffemodel"
    file.write_bytes(caffemodel(caffe_arrays, **options))
    assert trees_equal(read(file), params)


def test_read_npz_and_npy_folder(params, caffe_arrays, tmp_path):
    renamed = {name.replace(".weight", "_w").replace(".bias", "_b"): array for name, array in caffe_arrays.items()}
    np.savez(tmp_path / "net.npz", **renamed)
    assert trees_equal(read(tmp_path / "net.npz"), params)
    (tmp_path / "net").mkdir()
    for name, array in renamed.items():
        np.save(tmp_path / "net" / f"{name}.npy", array)
    assert trees_equal(read(tmp_path / "net"), params)


def test_read_hdf5(params, caffe_arrays, tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "net.h5", "w") as file:
        for name, array in caffe_arrays.items():
            layer, kind = name.split(".")
            file[f"data/{layer}/{'01'[kind == 'bias']}"] = array
        file.create_group("data/relu1")
    assert trees_equal(read(tmp_path / "net.h5"), params)
    (tmp_path / "net.h5").write_bytes((tmp_path / "net.h5").read_bytes()[:1000])
    assert_read_fails("cannot read .*net.h5: ", tmp_path / "net.h5")


def assert_read_fails(message, path):
    with pytest.raises(UserError, match=message) as error:
        read(path)
    assert "\n" not in str(error.value)


def assert_import_fails(message, path):
    with pytest.raises(UserError, match=message) as error:
        import_weights(path, "quickstart")
    assert "\n" not in str(error.value)


def test_damaged_caffemodel_is_rejected(caffe_arrays, tmp_path):
    content = caffemodel(caffe_arrays)
    file = tmp_path / "net.caffemodel"
    file.write_bytes(content[:-100])
    assert_read_fails("cannot read .*net.caffemodel: the file is truncated", file)
    file.write_bytes(b"\xff" * 1000)
    assert_read_fails("cannot read .*net.caffemodel: not a valid protocol buffer message", file)
    file.write_bytes(b"<html>not found</html>")
    assert_read_fails("net.caffemodel is a web page and not a weight file", file)
    file.write_bytes(b"")
    assert_read_fails("net.caffemodel is empty: download it again", file)
    file.write_bytes(field(1, b"AlexNet"))
    assert_read_fails("cannot read .*net.caffemodel: the file contains no weights", file)
    missing = {name: array for name, array in caffe_arrays.items() if not name.startswith("fc7")}
    file.write_bytes(caffemodel(missing))
    assert_read_fails("missing arrays: fc7.weight, fc7.bias", file)
    for size in np.random.default_rng(0).integers(0, len(content), 50):
        file.write_bytes(content[:size])
        with pytest.raises(UserError):
            read(file)


class FailOnUnpickling:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_pickles_are_not_loaded(tmp_path):
    np.save(tmp_path / "net.npy", np.array({"conv1": [FailOnUnpickling()]}, dtype=object), allow_pickle=True)
    assert_import_fails("net.npy: the pickle calls _pytest.outcomes._Fail, which is not allowed", tmp_path / "net.npy")
    (tmp_path / "net.npy").write_bytes(pickle.dumps(FailOnUnpickling()))
    assert_import_fails("net.npy: the pickle calls _pytest.outcomes._Fail, which is not allowed", tmp_path / "net.npy")
    np.savez(tmp_path / "net.npz", conv1_w=np.array([FailOnUnpickling()], dtype=object))
    assert_read_fails("net.npz: it contains a pickle", tmp_path / "net.npz")
    np.save(tmp_path / "net.npy", np.zeros(3))
    assert_import_fails("net.npy is a single array: pass a .npz", tmp_path / "net.npy")
    (tmp_path / "net.npz").write_bytes(b"PK\x03\x04nothing")
    assert_read_fails("cannot read .*net.npz: ", tmp_path / "net.npz")
    (tmp_path / "net.txt").touch()
    assert_read_fails("net.txt is empty", tmp_path / "net.txt")
    (tmp_path / "net.txt").write_text("text")
    assert_read_fails("net.txt is not a supported file, or damaged: pass .safetensors", tmp_path / "net.txt")
    (tmp_path / "empty").mkdir()
    assert_read_fails("empty contains no .npy files", tmp_path / "empty")
