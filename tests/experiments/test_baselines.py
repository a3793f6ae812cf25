"""Tests of the baselines in experiments/baselines/: descriptors, codes, Fisher vectors, classifiers, and small studies."""

import json
from collections import Counter
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.prepare.convert import PrepareOptions, prepare, prepare_path
from alexnet_jax.data.records import open_dataset
from alexnet_jax.errors import UserError
from tests.tiny_config import CONFIG

FOLDER = Path(__file__).parents[2] / "experiments" / "baselines"
SIDE = 64


@pytest.fixture(autouse=True)
def baselines_on_path(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)


@pytest.fixture
def extra():
    """Skip the test if the packages of the extra are not installed."""
    for package in ("cv2", "skimage", "sklearn"):
        pytest.importorskip(package, reason="the extra baselines is not installed; make baselines installs it")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def texture(rng):
    """Gray image, [116, 96], that is smooth at the scale of a pixel."""
    pixels = rng.uniform(0, 255, (29, 24)).astype(np.uint8)
    return np.asarray(Image.fromarray(pixels).resize((96, 116), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def gratings(tmp_path_factory):
    """Folder of wide images of gratings at random phases, of five classes, which are orientations. A quarter is for testing."""
    root, rng = tmp_path_factory.mktemp("gratings") / "gratings", np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, : 2 * SIDE]
    for label, angle in enumerate(np.linspace(0, np.pi, 5, endpoint=False)):
        for number in range(16):
            folder = root / ("test" if number % 4 == 0 else "train") / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            phase = 0.5 * (np.cos(angle) * x + np.sin(angle) * y) + rng.uniform(0, 2 * np.pi)
            pixels = 128 + 60 * np.sin(phase)[..., None] + rng.normal(0, 30, (SIDE, 2 * SIDE, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{label}-{number}.png")
    return root


@pytest.fixture(scope="module")
def prepared(gratings):
    return prepare_path(gratings, gratings.parent / "data" / "gratings", PrepareOptions(size=SIDE))


def test_random_splits_have_the_same_number_of_training_images_of_every_class(prepared):
    image_pool = import_module("image_pool")
    pool = image_pool.ImagePool(image_pool.open_source(str(prepared.path), Path("data")))
    assert len(pool) == 80
    splits = [pool.random_split(10, seed) for seed in (0, 0, 1)]
    for split in splits:
        assert Counter(pool.labels[split.train].tolist()) == dict.fromkeys(range(5), 10)
        assert sorted([*split.train, *split.test]) == list(range(80))
    assert (splits[0].train == splits[1].train).all()
    assert (splits[0].train != splits[2].train).any()
    given = pool.given_split()
    assert {pool.names[index].split("/")[0] for index in given.train} == {"train"}
    assert {pool.names[index].split("/")[0] for index in given.test} == {"test"}
    with pytest.raises(UserError, match="class 'class0' has 16 images: pass --images with a smaller number"):
        pool.random_split(16, seed=0)


def test_whole_images_are_in_the_order_of_prepared_ones(prepared, gratings):
    """Check that the splits of both are the same."""
    image_pool = import_module("image_pool")
    squares = image_pool.ImagePool(image_pool.open_source(str(prepared.path), Path("data")))
    whole = image_pool.ImagePool(image_pool.open_source(str(gratings), Path("data"), whole=True))
    assert (squares.names, squares.labels.tolist()) == (whole.names, whole.labels.tolist())
    assert (squares.gray(7).shape, whole.gray(7).shape) == ((SIDE, SIDE), (SIDE, 2 * SIDE))
    center = whole.gray(7)[:, SIDE // 2 : -SIDE // 2].astype(int)
    assert np.abs(squares.gray(7) - center).mean() < 8, "JPEG"


def test_some_classes_have_labels_from_zero(prepared, gratings):
    image_pool = import_module("image_pool")
    source = image_pool.open_source(str(prepared.path), Path("data"), classes=("class4", "class2"))
    pool = image_pool.ImagePool(source)
    assert pool.classes == ["class2", "class4"]
    assert [f"/{pool.classes[label]}/" in name for label, name in zip(pool.labels, pool.names, strict=True)] == [True] * 32
    with pytest.raises(UserError, match="--classes selects classes of prepared images"):
        image_pool.open_source(str(gratings), Path("data"), whole=True, classes=("class4", "class2"))


def test_data_set_of_a_random_split_contains_the_same_records(prepared, tmp_path):
    image_pool = import_module("image_pool")
    source = image_pool.open_source(str(prepared.path), Path("data"))
    pool = image_pool.ImagePool(source)
    split = pool.random_split(10, seed=3)
    copy = prepare(image_pool.RandomSplitSource(source, 10, seed=3), tmp_path / "split")
    assert copy.manifest.splits == {"train": 50, "test": 30}
    copied = image_pool.ImagePool(image_pool.open_source(str(copy.path), Path("data")))
    images = [copied.read(int(index)) for index in copied.given_split().train]
    assert images == [pool.read(int(index)) for index in split.train]


def test_dense_sift_is_that_of_opencv(extra, texture):
    cv2, dense_sift = import_module("cv2"), import_module("dense_sift")
    bin_size, step = 4, 5
    ours = dense_sift.dense_sift(texture, step, (bin_size,))
    centers = (ours.positions * texture.shape).round(3)
    assert centers.min() >= 2 * bin_size
    assert (centers <= np.array(texture.shape) - 2 * bin_size).all()
    keypoints = [cv2.KeyPoint(x=float(x), y=float(y), size=bin_size / 1.5, angle=0) for y, x in centers]
    # OpenCV smooths the image to a standard deviation of 1.6 pixels, from an assumed one of 0.5.
    smoothed = cv2.GaussianBlur(texture, (0, 0), np.sqrt(1.6**2 - 0.5**2))
    ours = dense_sift.dense_sift(smoothed, step, (bin_size,)).values
    opencv = cv2.SIFT_create().compute(texture, keypoints)[1]
    opencv /= np.linalg.norm(opencv, axis=1, keepdims=True)
    assert np.median((ours * opencv).sum(axis=1)) > 0.97


def test_scales_of_dense_sift(extra, texture):
    sift = import_module("dense_sift")
    both = sift.dense_sift(texture, 7, (4, 6, 100))
    singles = [sift.dense_sift(texture, 7, (bin_size,)) for bin_size in (4, 6)]
    np.testing.assert_array_equal(both.values, np.concatenate([single.values for single in singles]))
    np.testing.assert_allclose(np.linalg.norm(both.values, axis=1), 1, rtol=1e-5)
    assert not sift.dense_sift(np.full((40, 40), 9, np.uint8), 7, (4,)).values.any(), "flat image"
    assert sift.dense_sift(texture, 7, (100,)).values.shape == (0, 128)


def test_llc_solves_the_constrained_least_squares_problem(extra, rng):
    """Compare with the solution of the linear system of the Lagrangian: gradient zero, and coefficients that sum to 1."""
    coding = import_module("sparse_coding")
    descriptors, dictionary = (rng.normal(size=(n, 128)).astype(np.float32) for n in (20, 30))
    codes = coding.llc(descriptors, dictionary, 5, 1e-4)
    for x, words, coefficients in zip(descriptors, codes.words, codes.coefficients, strict=True):
        nearest = np.argsort(((dictionary - x) ** 2).sum(axis=1))[:5]
        assert set(words) == set(nearest)
        differences = (dictionary[words] - x).astype(np.float64)
        gram = differences @ differences.T
        gram += 1e-4 * np.trace(gram) * np.eye(5)
        system = np.block([[gram, np.ones((5, 1))], [np.ones((1, 5)), np.zeros((1, 1))]])
        np.testing.assert_allclose(coefficients, np.linalg.solve(system, [0, 0, 0, 0, 0, 1])[:5], rtol=1e-3, atol=1e-4)
    assert np.isfinite(coding.llc(dictionary, dictionary, 5, 1e-4).coefficients).all(), "descriptors that are words"


def test_pooling_takes_the_maximum_in_every_cell(extra, rng):
    coding = import_module("sparse_coding")
    words = np.stack([rng.permutation(7)[:2] for _ in range(50)])
    codes = coding.Codes(words, rng.normal(size=(50, 2)).astype(np.float32))
    positions = rng.uniform(size=(50, 2)).astype(np.float32)
    dense = np.zeros((50, 7))
    np.put_along_axis(dense, words, codes.coefficients, axis=1)
    expected = []
    for side in (4, 2, 1):
        for row, column in np.ndindex(side, side):
            inside = (np.floor(positions * side) == (row, column)).all(axis=1)
            expected.append(dense[inside].max(axis=0, initial=0))
    features = coding.pool(codes, positions, 7)
    np.testing.assert_allclose(features, np.concatenate(expected) / np.linalg.norm(expected), rtol=1e-5)


def test_fisher_vectors_of_regions_are_those_of_scikit_image(extra, texture):
    """Check each region against the Fisher vector of all descriptors in it."""
    module, dense_sift = import_module("fisher_vectors"), import_module("dense_sift").dense_sift
    from skimage.feature import fisher_vector  # pyright: ignore[reportMissingImports]

    method = module.FisherVectors(SimpleNamespace(), step=4, bin_sizes=(4, 6), components=8, gaussians=3, samples=500)
    vocabulary = method.learn(iter([texture]))
    features = method.encode(texture, vocabulary)
    assert np.linalg.norm(features) == pytest.approx(1, rel=1e-5)
    descriptors = dense_sift(texture, 4, (4, 6))
    projected = vocabulary.pca.transform(descriptors.values).astype(np.float64)
    y, x = descriptors.positions.T
    image = np.ones(len(y), bool)
    quarters = [upper & left for upper in (y < 0.5, y >= 0.5) for left in (x < 0.5, x >= 0.5)]
    strips = [np.floor(3 * y) == number for number in range(3)]
    for ours, inside in zip(np.split(features, 8), [image, *quarters, *strips], strict=True):
        expected = fisher_vector(projected[inside], vocabulary.mixture, improved=True)
        np.testing.assert_allclose(ours * np.sqrt(8), expected, atol=1e-5)


def test_inner_products_of_parts(extra, rng):
    features = rng.normal(size=(11, 6)).astype(np.float32)
    products = import_module("linear_svm").inner_products([features[:4], features[4:8], features[8:]].__getitem__, 3)
    np.testing.assert_allclose(products, features @ features.T, rtol=1e-5, atol=1e-5)


def test_machines_are_linear_and_one_class_against_the_rest(extra, rng):
    svm, Split = import_module("linear_svm"), import_module("image_pool").Split
    from sklearn.svm import SVC  # pyright: ignore[reportMissingImports]

    labels = np.arange(60) % 3
    features = (np.eye(3)[labels] + rng.normal(0, 0.4, (60, 3))).astype(np.float32)
    split = Split(np.arange(40), np.arange(40, 60))
    values = svm.decision_values(features @ features.T, labels, split, 3.0)
    for label in range(3):
        machine = SVC(C=3.0, kernel="linear").fit(features[:40], labels[:40] == label)
        np.testing.assert_allclose(values[:, label], machine.decision_function(features[40:]), atol=5e-3)
    errors = svm.count_errors(labels[split.test], values)
    assert errors.metrics.top1_error == np.mean(values.argmax(axis=1) != labels[40:])
    assert errors.metrics.top5_error is None


def test_penalty_is_chosen_on_training_images_only(extra, rng):
    svm = import_module("linear_svm")
    labels = np.arange(90) % 3
    features = (np.eye(3)[labels] + rng.normal(0, 1, (90, 3))).astype(np.float32)
    train = np.arange(60)
    chosen = svm.choose_cost(features @ features.T, labels, train, 0)
    features[60:], labels[60:] = np.nan, 0
    assert svm.choose_cost(features @ features.T, labels, train, 0) == chosen
    assert svm.choose_cost(features @ features.T, labels, train, 0, [chosen]) == chosen


def test_images_are_held_out_of_every_class(extra):
    labels, train = np.array([0] * 10 + [1] * 3 + [2] + [0, 1, 2]), np.arange(14)
    split = import_module("linear_svm").hold_out(labels, train, seed=0)
    assert sorted([*split.train, *split.test]) == train.tolist()
    assert np.bincount(labels[split.test], minlength=3).tolist() == [2, 1, 0]


@pytest.mark.slow
def test_baselines_classify_five_classes(extra, gratings, prepared, tmp_path):
    evaluate, study = import_module("evaluate_features").evaluate, import_module("study")
    fisher, coding = import_module("fisher_vectors"), import_module("sparse_coding")
    squares = study.Study(str(prepared.path), 8, (0, 1, 2), runs_dir=tmp_path, to=tmp_path / "result.json")
    whole = study.Study(str(gratings), None, whole=True, runs_dir=tmp_path, to=tmp_path / "result.json")
    for data, images in ((squares, (40, 40)), (whole, (60, 20))):
        for features in (
            fisher.FisherVectors(data, bin_sizes=(4, 6), components=8, gaussians=4, samples=2000),
            coding.SparseCoding(data, words=32, samples=2000),
        ):
            result = evaluate(features, data)
            assert json.loads((tmp_path / "result.json").read_text()) == json.loads(json.dumps(result))
            assert (result["training_images"], result["test_images"]) == images
            assert len(result["top1_error"]) == len(result["cost"]) == (3 if data is squares else 1)
            assert min(result["mean_class_accuracy"]) > 0.9
            encoded = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("features-*.npy")}
            assert evaluate(features, data)["top1_error"] == result["top1_error"]
            assert encoded == {file: file.stat().st_mtime_ns for file in encoded}, "features are computed once"


@pytest.mark.slow
def test_networks_are_trained_on_the_same_splits(prepared, tmp_path, monkeypatch):
    networks, study = import_module("networks"), import_module("study")
    monkeypatch.setattr(networks, "load_config", lambda name: CONFIG)
    data = study.Study(str(prepared.path), 8, (0, 1), data_dir=tmp_path, runs_dir=tmp_path, to=tmp_path / "result.json")
    result = networks.evaluate(networks.Networks(data, "tiny", (1, 2), held_out=3))
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert len(result["top1_error"]) == 2
    assert [choice["epochs"] for choice in result["choices"]] == [1, 2]
    assert result["epochs"] == min(result["choices"], key=lambda choice: choice["error"])["epochs"]
    assert [len(errors) for errors in result["training_error_by_epoch"]] == [result["epochs"]] * 2
    held_out = open_dataset(tmp_path / "gratings-8-seed0-held-out3")
    assert held_out.manifest.counts == {"train": [5] * 5, "validation": [3] * 5}
    copy = open_dataset(tmp_path / "gratings-8-seed1")
    assert copy.manifest.counts["train"] == [8] * 5


@pytest.mark.parametrize(("settings", "message"), [({"images": 1}, "--images must be at least 2"), ({"seeds": ()}, "--seeds")])
def test_invalid_settings_raise(settings, message):
    with pytest.raises(UserError, match=message):
        import_module("study").Study("photos", **settings)


def test_networks_are_not_trained_on_whole_images():
    networks, study = import_module("networks"), import_module("study")
    with pytest.raises(UserError, match="leave out --whole"):
        networks.evaluate(networks.Networks(study.Study("photos", whole=True)))


def test_contrast_normalization_is_that_of_jarrett_et_al(rng):
    layer = import_module("jarrett").LocalContrastNorm(size=5, deviation=1.0)
    x = rng.uniform(0, 1, (2, 7, 9, 4)).astype(np.float32)
    window = np.exp(-((np.arange(5) - 2) ** 2) / 2)

    def local_mean(maps):
        mean = np.empty(maps.shape[:3])
        for row, column in np.ndindex(mean.shape[1:]):
            top, left = max(0, row - 2), max(0, column - 2)
            area = maps[:, top : row + 3, left : column + 3].mean(axis=-1)
            weights = np.outer(window[top - row + 2 :][: area.shape[1]], window[left - column + 2 :][: area.shape[2]])
            mean[:, row, column] = (area * weights).sum((1, 2)) / weights.sum()
        return mean[..., None]

    centered = x - local_mean(x)
    deviation = np.sqrt(local_mean(centered**2))
    expected = centered / np.maximum(deviation, deviation.mean((1, 2), keepdims=True))
    np.testing.assert_allclose(layer.apply({}, x), expected, atol=1e-4)


def test_constant_images_have_finite_gradients():
    layer = import_module("jarrett").LocalContrastNorm()
    gradient = jax.grad(lambda x: (layer.apply({}, x) ** 2).sum())(np.ones((1, 7, 7, 3), np.float32))
    assert np.isfinite(gradient).all()
