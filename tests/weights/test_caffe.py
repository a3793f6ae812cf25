"""Caffe's files, made here: what Caffe itself has written has not been at hand."""

import pickle

import jax
import numpy as np
import pytest

from alexnet_jax.errors import UserError
from alexnet_jax.weights.caffe import caffe_blobs, read_mean_image, with_red_first
from alexnet_jax.weights.state_dict import from_state_dict, to_state_dict
from tests.weights.caffemodel import blob, caffemodel
from tests.weights.small import SMALL_BVLC, random_params


@pytest.fixture(scope="module")
def params():
    return random_params(SMALL_BVLC)


@pytest.fixture(scope="module")
def theirs(params):
    """The same network as Caffe has it: blue comes first."""
    return to_state_dict(SMALL_BVLC, with_red_first(params))


def read(path):
    return with_red_first(from_state_dict(SMALL_BVLC, caffe_blobs(path), str(path)))


def same(these, those):
    return jax.tree.structure(these) == jax.tree.structure(those) and all(
        map(np.array_equal, jax.tree.leaves(these), jax.tree.leaves(those))
    )


@pytest.mark.parametrize("first_form", [False, True], ids=["layer", "layers"])
@pytest.mark.parametrize("legacy", [False, True], ids=["shape", "num, channels, height, width"])
def test_a_caffemodel_is_read(params, theirs, tmp_path, first_form, legacy):
    file = tmp_path / "net.caffemodel"
    file.write_bytes(caffemodel(theirs, first_form=first_form, legacy=legacy))
    assert same(read(file), params)
    assert np.array_equal(theirs["conv1.weight"][:, 0], params["conv1"]["kernel"][0, ..., 2, :].transpose(2, 0, 1)), "blue"


@pytest.mark.parametrize("written", [{"packed": False}, {"double": True}], ids=["one by one", "doubles"])
def test_numbers_may_be_written_otherwise(params, theirs, tmp_path, written):
    file = tmp_path / "net.caffemodel"
    file.write_bytes(caffemodel(theirs, **written))
    assert same(read(file), params)


def test_arrays_are_read(params, theirs, tmp_path):
    named = {name.replace(".weight", "_w").replace(".bias", "_b"): array for name, array in theirs.items()}
    np.savez(tmp_path / "net.npz", **named)
    assert same(read(tmp_path / "net.npz"), params)
    (tmp_path / "net").mkdir()
    for name, array in named.items():
        np.save(tmp_path / "net" / f"{name}.npy", array)
    assert same(read(tmp_path / "net"), params)


def test_hdf5_is_read(params, theirs, tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "net.h5", "w") as file:
        for name, array in theirs.items():
            layer, kind = name.split(".")
            file[f"data/{layer}/{'01'[kind == 'bias']}"] = array
        file.create_group("data/relu1")
    assert same(read(tmp_path / "net.h5"), params)
    (tmp_path / "net.h5").write_bytes((tmp_path / "net.h5").read_bytes()[:1000])
    refused("cannot be read", tmp_path / "net.h5")


def refused(message, path):
    with pytest.raises(UserError, match=message) as error:
        read(path)
    assert "\n" not in str(error.value)


def test_what_is_no_caffemodel_is_refused(theirs, tmp_path):
    content = caffemodel(theirs)
    file = tmp_path / "net.caffemodel"
    file.write_bytes(content[:-100])
    refused("net.caffemodel cannot be read: it ends before it should", file)
    file.write_bytes(b"\xff" * 1000)
    refused("net.caffemodel cannot be read: it is no protocol buffer", file)
    file.write_bytes(b"<html>not found</html>")
    refused("net.caffemodel cannot be read: it is no protocol buffer", file)
    file.write_bytes(b"")
    refused("net.caffemodel cannot be read: it holds no weights", file)
    missing = {name: array for name, array in theirs.items() if not name.startswith("fc7")}
    file.write_bytes(caffemodel(missing))
    refused("misses fc7.weight, fc7.bias", file)
    for size in np.random.default_rng(0).integers(0, len(content), 50):
        file.write_bytes(content[:size])
        with pytest.raises(UserError):
            read(file)


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_pickles_are_not_run(tmp_path):
    np.save(tmp_path / "net.npy", np.array({"conv1": [Trap()]}, dtype=object), allow_pickle=True)
    refused("net.npy is a pickle, which could run any program", tmp_path / "net.npy")
    (tmp_path / "net.npy").write_bytes(pickle.dumps(Trap()))
    refused("net.npy is a pickle", tmp_path / "net.npy")
    np.savez(tmp_path / "net.npz", conv1_w=np.array([Trap()], dtype=object))
    refused("net.npz is a pickle", tmp_path / "net.npz")
    np.save(tmp_path / "net.npy", np.zeros(3))
    refused("it is one array; give a .npz", tmp_path / "net.npy")
    (tmp_path / "net.npz").write_bytes(b"PK\x03\x04nothing")
    refused("net.npz cannot be read", tmp_path / "net.npz")
    (tmp_path / "net.txt").touch()
    refused("net.txt is none of .caffemodel, .npz", tmp_path / "net.txt")
    (tmp_path / "empty").mkdir()
    refused("there are no .npy files in it", tmp_path / "empty")


def test_mean_images_are_read(tmp_path):
    ours = np.random.default_rng(0).uniform(0, 255, (16, 16, 3)).astype(np.float32)
    theirs = ours[..., ::-1].transpose(2, 0, 1)
    (tmp_path / "mean.binaryproto").write_bytes(blob(np.ascontiguousarray(theirs), legacy=True))
    np.save(tmp_path / "caffe.npy", theirs)
    np.save(tmp_path / "mean_image.npy", ours)
    for name in ("mean.binaryproto", "caffe.npy", "mean_image.npy"):
        assert np.array_equal(read_mean_image(tmp_path / name), ours), name
    for name, content in (("no.binaryproto", b"\x00"), ("short.npy", b"\x93NUMPY"), ("flat.npy", None)):
        if content is None:
            np.save(tmp_path / name, np.zeros(5))
        else:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=r"the mean image .* cannot be read"):
            read_mean_image(tmp_path / name)
