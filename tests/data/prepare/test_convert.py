"""Tests of data set preparation: conversion, splits, statistics and errors."""

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.find import find_dataset
from alexnet_jax.data.images import decode_and_center_crop
from alexnet_jax.data.pipeline.batches import evaluation_batches
from alexnet_jax.data.prepare import shard_writer
from alexnet_jax.data.prepare.convert import map_in_threads, prepare_path
from alexnet_jax.data.records import Record, open_dataset
from alexnet_jax.data.sources.held_out import ValidationSplit
from alexnet_jax.data.sources.registry import find_source
from alexnet_jax.data.sources.synthetic import CLASSES, draw_image
from alexnet_jax.data.statistics import PixelStatistics
from alexnet_jax.errors import UserError
from tests.dataset_writer import create_dataset


def save_image(path, size, rng, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8)).save(path, **kwargs)


@pytest.fixture
def folder(tmp_path, rng):
    """Folder with three classes, two splits, and images that are not square."""
    root = tmp_path / "photos"
    for split, images in (("train", 4), ("val", 2)):
        for name in ("cat", "dog", "owl"):
            for i in range(images):
                save_image(root / split / name / f"{i}.jpg", (300 + 40 * i, 280), rng)
    return root


def test_prepare_folder(folder, tmp_path):
    dataset = prepare_path(folder, tmp_path / "data" / "photos")
    manifest = open_dataset(tmp_path / "data" / "photos").manifest
    assert manifest.classes == ["cat", "dog", "owl"]
    assert manifest.splits == {"train": 12, "validation": 6}
    batches = list(evaluation_batches(dataset, "validation", image_size=256, input_size=224, batch_size=4))
    assert [len(batch.label) for batch in batches] == [4, 2]
    assert np.concatenate([batch.label for batch in batches]).tolist() == [0, 0, 1, 1, 2, 2]
    assert batches[0].image.shape == (4, 224, 224, 3)


def test_manifest_of_another_program_makes_no_data_set(folder, tmp_path):
    """The message for a damaged data set advises to delete it, which would be the user's photos."""
    (folder / "manifest.json").write_text("{}")
    dataset = find_dataset(str(folder), "photos", tmp_path / "data")
    assert dataset.path.parent == tmp_path / "data"
    assert dataset.manifest.splits["train"] == 12


def names_by_split(source):
    return {split: [name for _, name in source.names(split)] for split in source.num_images}


def test_validation_split_is_stable_when_images_are_added(tmp_path, rng):
    for i in range(200):
        save_image(tmp_path / "flat" / ("a" if i % 2 else "b") / f"{i}.png", (8, 8), rng)
    files = names_by_split(find_source(str(tmp_path / "flat"), ValidationSplit()))
    assert 8 <= len(files["validation"]) <= 34
    assert len(files["train"]) + len(files["validation"]) == 200
    save_image(tmp_path / "flat" / "a" / "one_more.png", (8, 8), rng)
    more = names_by_split(find_source(str(tmp_path / "flat"), ValidationSplit()))
    assert set(files["train"]) <= set(more["train"])
    assert set(files["validation"]) <= set(more["validation"])


def test_resize_shorter_side_and_center_crop(tmp_path):
    """Check that the crop of an image with thirds of different colors contains only the middle third."""
    image = np.zeros((100, 300, 3), np.uint8)
    image[:, :100], image[:, 100:200], image[:, 200:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    Image.fromarray(image).save(tmp_path / "flag.png")
    square = decode_and_center_crop((tmp_path / "flag.png").read_bytes(), 256)
    assert square.shape == (256, 256, 3)
    assert np.abs(square[:, 8:-8].astype(int) - (0, 255, 0)).max() <= 2


def test_image_modes_and_exif_orientation(tmp_path, rng):
    for mode in ("L", "CMYK", "1"):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).convert(mode).save(tmp_path / f"{mode}.tiff")
        assert decode_and_center_crop((tmp_path / f"{mode}.tiff").read_bytes(), 32).shape == (32, 32, 3)
    rotated = Image.fromarray(np.tile(np.arange(60, dtype=np.uint8)[:, None, None], (1, 60, 3)))
    exif = rotated.getexif()
    exif[0x0112] = 6  # rotation by 90 degrees clockwise, which turns rows into columns
    rotated.save(tmp_path / "rotated.png", exif=exif)
    upright = decode_and_center_crop((tmp_path / "rotated.png").read_bytes(), 60)
    assert upright[30, 5, 0] > upright[30, 50, 0]


def test_unreadable_files_are_reported(folder, tmp_path, capsys):
    content = (folder / "train" / "cat" / "0.jpg").read_bytes()
    (folder / "train" / "cat" / "0.jpg").write_bytes(content[: len(content) // 2])
    (folder / "train" / "dog" / "1.jpg").write_bytes(b"not an image")
    dataset = prepare_path(folder, tmp_path / "out")
    assert set(dataset.manifest.skipped) == {"train/cat/0.jpg", "train/dog/1.jpg"}
    assert dataset.manifest.splits["train"] == 10
    messages = capsys.readouterr().err
    assert "skipped train/cat/0.jpg" in messages
    assert "2 skipped" in messages


def test_statistics_match_numpy(rng):
    images = [rng.integers(0, 256, (8, 8, 3), np.uint8) for _ in range(20)]
    statistics = PixelStatistics(8)
    for image in images:
        statistics.add(image)
    stack = np.stack(images).astype(np.float64)
    np.testing.assert_allclose(statistics.mean_image, stack.mean(0), rtol=1e-6)
    components = statistics.color_components()
    covariance = np.cov(stack.reshape(-1, 3).T, bias=True)
    covariance_from_components = components.directions @ np.diag(components.deviations**2) @ components.directions.T
    np.testing.assert_allclose(covariance_from_components, covariance, rtol=1e-9)


def test_map_in_threads_keeps_order():
    assert list(map_in_threads(lambda x: x * x, range(100), 4)) == [x * x for x in range(100)]


def test_full_disk_while_a_shard_is_written(tmp_path, monkeypatch):
    import errno

    def raise_disk_full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shard_writer, "ArrayRecordWriter", raise_disk_full)
    with pytest.raises(UserError, match="no space left for"), create_dataset(tmp_path / "out", ["a"], size=8) as writer:
        writer.write("train", Record(b"", 0, "x"), np.zeros((8, 8, 3), np.uint8))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda root: None, "does not exist"),
        (lambda root: (root / "train" / "cat").mkdir(parents=True), "has no images"),
        (lambda root: save_image(root / "train" / "cat" / "0.jpg", (9, 9), np.random.default_rng(0)), r"one class only \(cat\)"),
        (lambda root: save_image(root / "val" / "cat" / "0.jpg", (9, 9), np.random.default_rng(0)), "no images in train"),
    ],
    ids=["missing", "empty", "one class", "no train"],
)
def test_invalid_folders_are_rejected(tmp_path, create, message):
    create(tmp_path / "photos")
    with pytest.raises(UserError, match=message):
        prepare_path(tmp_path / "photos", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_open_damaged_dataset(folder, tmp_path):
    out = tmp_path / "out"
    prepare_path(folder, out)
    shard = out / "train-00000.array_record"
    shard.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"train-00000.* is missing"):
        open_dataset(out)
    (out / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        open_dataset(out)


def test_find_dataset_by_folder_or_name(folder, tmp_path, capsys):
    data_dir = tmp_path / "data"
    by_folder = find_dataset(str(folder), "imagenet", data_dir)
    again = find_dataset(str(folder), "imagenet", data_dir)
    assert again.path == by_folder.path, "the folder must be prepared only once"
    assert find_dataset(by_folder.path.name, "imagenet", data_dir).path == by_folder.path
    assert find_dataset(str(by_folder.path), "imagenet", data_dir).path == by_folder.path
    with pytest.raises(UserError, match="no data set 'nowhere'"):
        find_dataset("nowhere", "imagenet", data_dir)


@pytest.mark.slow
def test_linear_classifier_fails_on_synthetic_dataset():
    """Fit ridge regression on 32x32 pixels; the penalty is chosen on the test images, so the accuracy is an upper bound."""
    rng = np.random.default_rng(0)

    def draw_images(count):
        labels = np.arange(count) % len(CLASSES)
        pixels = [draw_image(CLASSES[label], rng).reshape(32, 8, 32, 8, 3).mean((1, 3)) for label in labels]
        return np.stack(pixels).reshape(count, -1) / 255 - 0.5, labels

    (x, y), (x_test, y_test) = draw_images(700), draw_images(300)
    accuracies = []
    for penalty in (1, 10, 100, 1000):
        alpha = np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), np.eye(10)[y])
        accuracies.append(((x_test @ (x.T @ alpha)).argmax(1) == y_test).mean())
    assert max(accuracies) < 0.2, "a tenth is chance"
