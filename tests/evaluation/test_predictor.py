"""Tests of the images that a predictor accepts, and of the messages about others."""

import warnings
from io import BytesIO

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.model.convolution import conv_lowering
from alexnet_jax.model.lowering import tower_lowering
from alexnet_jax.weights.trained_model import initialize
from alexnet_kernels import default_implementation
from tests.conftest import cpu_mesh
from tests.tiny import TINY

SIZE = 32


@pytest.fixture(scope="module")
def predictor():
    return Predictor(initialize(TINY, image_size=SIZE), batch_size=4)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def test_forms_of_the_same_image(predictor, image, tmp_path):
    file = tmp_path / "image.png"
    Image.fromarray(image).save(file)
    expected = predictor(image[None])
    in_memory = Image.fromarray(image)
    for form in (
        str(file),
        file,
        [file],
        (str(file),),
        file.read_bytes(),
        [file.read_bytes()],
        in_memory,
        [in_memory],
        image,
        [image],
        Image.open(file),
    ):
        assert np.array_equal(predictor(form), expected), type(form)
    assert np.array_equal(predictor(jnp.asarray(image)), expected)
    mixed = predictor([file, image, Image.fromarray(image), str(file), file])
    np.testing.assert_allclose(mixed, np.repeat(expected, 5, axis=0), rtol=1e-5)  # another batch size
    assert predictor.classify(file, top=1) == predictor.classify([image], top=1)
    wide = Image.fromarray(np.pad(image, ((0, 0), (7, 7), (0, 0))))
    assert np.array_equal(predictor(wide), expected), "the central square is used"
    assert predictor(wide.convert("L")).shape == expected.shape


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 9])
def test_few_images_are_padded_to_a_power_of_two(number, monkeypatch):
    predictor = Predictor(initialize(TINY, image_size=SIZE), batch_size=6)
    images = np.random.default_rng(1).integers(0, 256, (number, SIZE, SIZE, 3), np.uint8)
    shapes = []
    predict = predictor._average
    monkeypatch.setattr(predictor, "_average", lambda *args: shapes.append(len(args[-1])) or predict(*args))
    outputs = predictor(images)
    assert shapes == {1: [1], 2: [2], 3: [4], 4: [4], 5: [6], 9: [6, 6]}[number]
    one_by_one = np.concatenate([predictor(image) for image in images])
    np.testing.assert_allclose(outputs, one_by_one, rtol=1e-5)
    assert shapes[-number:] == [1] * number
    assert predictor.predict_batch(images[:1]).shape == (1, 7)
    assert shapes[-1] == 6


def test_unknown_layers_and_views_are_refused_with_the_choices(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests check types, users do not
    model = initialize(TINY, image_size=SIZE)
    with pytest.raises(UserError, match=r"no layer 'conv9': choose one of conv1, conv1/relu, .*fc6"):
        Predictor(model, layer="conv9")
    with pytest.raises(UserError, match="no views 'eleven': choose one of center, ten, nine"):
        Predictor(model, views="eleven")  # type: ignore[reportArgumentType]
    with pytest.raises(UserError, match="top must be at least 1, not 0"):
        Predictor(model).classify(np.zeros((SIZE, SIZE, 3), np.uint8), top=0)


DTYPES = st.sampled_from(["uint8", "float32", "float64", "int64", "uint16", "bool"])
SHAPES = st.lists(st.sampled_from([0, 1, 3, 4, SIZE - 1, SIZE]), max_size=5)


@settings(max_examples=60, deadline=None)
@given(DTYPES, SHAPES, st.sampled_from([0, 0.5, 255]), st.booleans())
def test_other_arrays_are_refused_with_the_expected_form(predictor, dtype, shape, value, in_list):
    array = np.full(shape, value).astype(dtype)
    valid = (
        dtype == "uint8" and shape[-3:] == [SIZE, SIZE, 3] and (len(shape) == 3 or (len(shape) == 4 and not in_list and shape[0]))
    )
    if valid:
        assert predictor([array] if in_list else array).shape[1] == 7
        return
    with pytest.raises(
        UserError, match=rf"pass image files, their bytes or images of Pillow.*\[images, {SIZE}, {SIZE}, 3\], 0 to 255, not"
    ):
        predictor([array] if in_list else array)


@pytest.mark.parametrize(("images", "found"), [([], "empty list"), ((), "empty tuple")])
def test_no_images_are_refused(predictor, images, found):
    with pytest.raises(UserError, match=f"pass image files.*, not {found}$"):
        predictor(images)


def test_files_are_read_without_the_warnings_settings_that_threads_share(predictor, image, tmp_path, monkeypatch):
    file = tmp_path / "image.png"
    Image.fromarray(image).save(file)
    monkeypatch.setattr(warnings, "catch_warnings", None)
    for form in (file, file.read_bytes(), Image.open(file)):
        assert predictor(form).shape == (1, 7)


def test_every_error_of_pillow_is_a_user_error(predictor, image, monkeypatch):
    def fail(_):
        raise SyntaxError("broken PNG file")

    monkeypatch.setattr("alexnet_jax.data.images._to_rgb", fail)
    file = BytesIO()
    Image.fromarray(image).save(file, "PNG")
    for form in (Image.fromarray(image), file.getvalue()):
        with pytest.raises(UserError, match="broken PNG file"):
            predictor(form)
    with pytest.raises(UserError, match="the image cannot be read as an image: unsupported file format; expected one of JPEG"):
        predictor(b"text")


def test_unreadable_item_of_a_sequence_is_named(predictor, image, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests check types, users do not
    gray = image[..., 0]
    for item, message in (
        (b"text", r"^images\[129\] cannot be read as an image: unsupported file format"),
        (Image.fromarray(gray.astype(np.int32)), r"^images\[129\] cannot be read: 32-bit pixels are not supported"),
        (Image.new("RGB", (0, 5)), r"^images\[129\] cannot be read: it has 0 x 5 pixels"),
        ([[1], [1, 2]], r"^images\[129\] is invalid: pass image files.*, not list"),
        (gray, r"^images\[129\] is invalid: pass image files.*, not uint8 \[1, 32, 32\]"),
    ):
        with pytest.raises(UserError, match=message):
            predictor([image] * 129 + [item, b"also text"])


def test_unreadable_files_are_named(predictor, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"text")
    with pytest.raises(UserError, match=r"a.jpg cannot be read as an image"):
        predictor(str(tmp_path / "a.jpg"))
    with pytest.raises(UserError, match=r"cannot read .*b.jpg"):
        predictor([tmp_path / "b.jpg"])


@pytest.mark.parametrize(
    ("arguments", "devices", "expected"), [({}, 1, 128), ({"batch_size": 7}, 1, 7), ({"batch_size": 7}, 4, 8)]
)
def test_batch_size_is_a_multiple_of_the_devices(predictor, arguments, devices, expected, monkeypatch):
    mesh = cpu_mesh(TINY, devices, split=False)
    monkeypatch.setattr("alexnet_jax.evaluation.predictor.choose_mesh", lambda *_: mesh)
    assert Predictor(predictor.model, **arguments).batch_size == expected


def test_path_in_place_of_a_model(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(UserError, match=r"pass a TrainedModel, as returned by load\(path\), not str"):
        Predictor("runs/mine")  # pyright: ignore[reportArgumentType]


def test_models_of_the_same_network_share_a_compiled_function():
    first, second = (Predictor(initialize(TINY, image_size=SIZE, seed=seed)) for seed in (0, 1))
    assert first._average is second._average
    assert Predictor(initialize(TINY, image_size=SIZE), views="ten")._average is not first._average
    for context in (default_implementation("reference"), tower_lowering("grouped"), conv_lowering("space_to_depth")):
        with context:
            assert Predictor(first.model)._average is not first._average
    assert len(repr(first.model)) < 5000
