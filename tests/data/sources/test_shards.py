"""Tests of Parquet, WebDataset and TFDS as sources: the records are those of a folder of the same images."""

import numpy as np
import pytest

from alexnet_jax.data.find import find_dataset, select_classes
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.prepare.convert import PrepareOptions, prepare_path
from alexnet_jax.data.prepare.verify import verify
from alexnet_jax.data.sources.held_out import ValidationSplit
from alexnet_jax.data.sources.registry import find_source
from alexnet_jax.errors import UserError
from tests.data.sources.archives import WNIDS, open_source
from tests.data.sources.shard_files import LABELED, PICTURES, write_folders, write_parquet, write_tfds, write_webdataset

FORMS = {
    "parquet": write_parquet,
    "webdataset": write_webdataset,
    "tfrecord": write_tfds,
    "array_record": lambda root, *pictures: write_tfds(root, *pictures, file_format="array_record"),
}


def prepared(source, out):
    return prepare_path(str(source), out, PrepareOptions(size=16))


def records(dataset):
    """Return the records of all splits, sorted by name."""
    splits = {split: DecodedImages(dataset, split, dataset.manifest.size) for split in dataset.manifest.splits}
    return {
        split: sorted((images.record(i) for i in range(len(images))), key=lambda r: r.name) for split, images in splits.items()
    }


@pytest.fixture(scope="module")
def from_folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    return prepared(write_folders(root / "source"), root / "out")


@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
def test_same_records_as_a_folder(write, from_folders, tmp_path):
    dataset = prepared(write(tmp_path / "source"), tmp_path / "out")
    assert dataset.manifest.splits == {"train": 13, "validation": 3, "test": 3}
    assert records(dataset) == records(from_folders)
    assert dataset.manifest.classes == WNIDS
    assert dataset.manifest.counts == from_folders.manifest.counts
    assert dataset.manifest.unlabeled == from_folders.manifest.unlabeled == ["test"]
    assert [record.label for record in records(dataset)["test"]] == [-1, -1, -1]
    np.testing.assert_array_equal(dataset.mean_image, from_folders.mean_image)
    verify(dataset.path)


@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
def test_validation_images_are_held_out_as_in_a_folder(write, tmp_path):
    train = {"train": PICTURES["train"]}
    source = find_source(str(write(tmp_path / "source", train)), ValidationSplit(0.3))
    assert list(source.num_images) == ["train", "validation"]
    names = {split: {source.read(split, i).name for i in range(count)} for split, count in source.num_images.items()}
    all_names = [(WNIDS[label], f"train/{WNIDS[label]}/{name}") for label, name, _ in train["train"]]
    assert names["validation"] == {all_names[index][1] for index in np.flatnonzero(ValidationSplit(0.3).select(all_names))}
    assert names["train"] | names["validation"] == {name for _, name in all_names}


def test_fingerprint_depends_on_the_images(tmp_path):
    for form, write in FORMS.items():
        path = write(tmp_path / form, LABELED)
        fingerprint = open_source(path).fingerprint()
        assert open_source(path).fingerprint() == fingerprint
        changed = {"train": PICTURES["train"][1:], "validation": PICTURES["validation"]}
        assert open_source(write(tmp_path / f"changed-{form}", changed)).fingerprint() != fingerprint


@pytest.mark.parametrize("write", [write_parquet, write_webdataset], ids=["parquet", "webdataset"])
def test_shards_without_splits_can_be_test_images(write, tmp_path):
    folder = write(tmp_path / "source", {"train": PICTURES["train"]}, shards=1)
    for file in sorted(folder.rglob("*train*")):
        file.rename(file.with_name(f"part-0{file.suffix}"))
    dataset = find_dataset(str(folder), "", tmp_path / "data", testing=True)
    assert dataset.manifest.splits == {"test": 13}
    assert DecodedImages(dataset, "test", 256).record(0).name.startswith(WNIDS[0])  # no split in the name


def test_selected_classes_of_a_dataset_with_unlabeled_images(from_folders, tmp_path):
    selected = select_classes(from_folders, WNIDS[:2], tmp_path)
    assert selected.manifest.splits == {"train": 9, "validation": 2}


def with_labels(change):
    return {
        split: [(change(split, i, label), name, data) for i, (label, name, data) in enumerate(images)]
        for split, images in PICTURES.items()
    }


WRONG_LABELS = {
    "out of range": (
        with_labels(lambda split, i, label: 7 if (split, i) == ("train", 2) else label),
        r"label 7, expected 0 to 2",
    ),
    "partly without": (
        with_labels(lambda split, i, label: -1 if (split, i) == ("validation", 1) else label),
        r"has 1 validation images without a label among 3",
    ),
    "class without images": (
        with_labels(lambda split, i, label: 0 if label == 1 else label),
        r"classes without train images: n01443537",
    ),
    "no train split": ({"validation": PICTURES["validation"]}, r"has no labeled training images, only validation"),
    "train without labels": (
        with_labels(lambda split, i, label: -1 if split == "train" else label),
        r"no labeled training images",
    ),
}


@pytest.mark.parametrize(("pictures", "message"), WRONG_LABELS.values(), ids=WRONG_LABELS)
def test_wrong_labels(pictures, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        open_source(write_parquet(tmp_path / "source", pictures))
    assert "\n" not in str(error.value)
