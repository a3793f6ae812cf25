"""Tests of the forms of mean images, and of the checks of their size, range and channel order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_jax.errors import UserError
from alexnet_jax.weights.means import read_mean_image
from tests.weights.caffemodel import blob

SIZE = 16
COLORS = {"rgb": (122.5, 117.2, 104.4), "bgr": (104.4, 117.2, 122.5)}


def image(color, size=SIZE):
    noise = np.random.default_rng(0).uniform(-9, 9, (size, size, 3))
    return (np.broadcast_to(color, (size, size, 3)) + noise - noise.mean((0, 1))).astype(np.float32)


def write(path, array):
    if path.suffix == ".binaryproto":
        path.write_bytes(blob(np.ascontiguousarray(array), legacy=True))
    else:
        np.save(path, array)
    return path


FORMS = {"[size, size, 3]": lambda mean: mean, "[3, size, size]": lambda mean: mean.transpose(2, 0, 1)}


def test_forms_of_the_same_mean(tmp_path):
    mean = image(COLORS["rgb"])
    bgr = mean[..., ::-1]
    files = {
        "mean.binaryproto": bgr.transpose(2, 0, 1),
        "caffe.npy": bgr.transpose(2, 0, 1),
        "batch.npy": bgr.transpose(2, 0, 1)[None],
        "rgb.npy": mean.transpose(2, 0, 1),
        "mean_image.npy": mean,
        "double.npy": mean.astype(np.float64),
    }
    for name, array in files.items():
        assert np.array_equal(read_mean_image(write(tmp_path / name, array), SIZE), mean), name


@pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (1, 1, 3), (1, 3, 1, 1)])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_mean_colors(tmp_path, shape, order):
    file = write(tmp_path / "mean.npy", np.array(COLORS[order]).reshape(shape))
    assert read_mean_image(file, SIZE)[3, 5].tolist() == np.array(COLORS["rgb"], np.float32).tolist()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(130, 250), min_size=3, max_size=3), st.sampled_from([*FORMS]), st.sampled_from(["rgb", "bgr"]))
def test_channel_order_is_documented_or_asked_for_but_never_guessed(tmp_path_factory, color, form, order):
    file = write(tmp_path_factory.mktemp("mean") / "mean.npy", FORMS[form](np.broadcast_to(np.float32(color), (SIZE, SIZE, 3))))
    expected = np.float32(color if order == "rgb" else color[::-1])
    assert (read_mean_image(file, SIZE, order) == expected).all()
    is_gray = len(set(np.asarray(color, np.float32).tolist())) == 1
    if is_gray or form == "[size, size, 3]":
        assert (read_mean_image(file, SIZE) == np.float32(color)).all()
    else:  # the file says nothing of its order
        with pytest.raises(UserError, match="pass --mean-colors rgb, or bgr"):
            read_mean_image(file, SIZE)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (image((90, 120, 130))[..., 0], r"has shape \(16, 16\), expected \[size, size, 3\]"),
        (np.zeros(5), r"has shape \(5,\)"),
        (np.zeros(()), r"has shape \(\)"),
        (image((90, 120, 130))[:12], r"has shape \(12, 16, 3\)"),
        (image((90, 120, 130), 15), "has 15 pixels, but images are decoded to 16 pixels: .* --image-size 15"),
        (image((0.4, 0.45, 0.5)) * 0 + 0.4, "has values from 0 to 1, expected 0 to 255: multiply them by 255"),
        (image((-3, 120, 130)), "has values from .* expected 0 to 255"),
        (image((90, 120, 252)), "has values from .* expected 0 to 255"),
        (image((90, 120, np.inf)), "expected 0 to 255"),
        (image((90, np.nan, 130)), "expected 0 to 255"),
        (np.full((SIZE, SIZE, 3), "x"), "has values of type"),
        (image((104, 117, 123)), "the order of the channels .* is unknown"),
    ],
)
def test_other_means_are_refused(tmp_path, array, message):
    with pytest.raises(UserError, match=message) as error, np.errstate(invalid="ignore"):
        read_mean_image(write(tmp_path / "mean.npy", array), SIZE)
    assert "\n" not in str(error.value)


def test_zero_is_a_mean(tmp_path):
    assert not read_mean_image(write(tmp_path / "mean.npy", np.zeros((SIZE, SIZE, 3))), SIZE).any()


@pytest.mark.parametrize(("name", "content"), [("no.binaryproto", b"\x00"), ("short.npy", b"\x93NUMPY"), ("no.npy", None)])
def test_damaged_means_are_refused(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*: .*(download|pass) "):
        read_mean_image(tmp_path / name, SIZE)
