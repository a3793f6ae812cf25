"""Tests of Parquet, WebDataset and TFDS as sources: the records are those of a folder of the same images."""

import io
import json
import sys
import tarfile

import numpy as np
import pytest

from alexnet_jax.data.find import find_dataset, select_classes
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.prepare.convert import PrepareOptions, prepare_path
from alexnet_jax.data.prepare.verify import verify
from alexnet_jax.data.sources.held_out import ValidationSplit
from alexnet_jax.data.sources.registry import find_source
from alexnet_jax.errors import UserError
from tests.data.sources.archives import WNIDS, make_tar, open_source, write_files
from tests.data.sources.shard_files import (
    PICTURES,
    parquet_table,
    write_folders,
    write_parquet,
    write_tfds,
    write_webdataset,
)

FORMS = {
    "parquet": write_parquet,
    "webdataset": write_webdataset,
    "tfrecord": write_tfds,
    "array_record": lambda root, *pictures: write_tfds(root, *pictures, file_format="array_record"),
}
LABELED = {split: images for split, images in PICTURES.items() if split != "test"}


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


def test_parquet_without_metadata(tmp_path):
    pa = pytest.importorskip("pyarrow")
    write_table = pytest.importorskip("pyarrow.parquet").write_table
    images = PICTURES["train"]
    contents = pa.array([data for _, _, data in images], pa.binary())
    for number, labels in enumerate(([label for label, _, _ in images], ["abc"[label] for label, _, _ in images])):
        write_table(pa.table({"image": contents, "label": labels}), tmp_path / f"{number}.parquet")
        source = open_source(tmp_path / f"{number}.parquet", held_out=0.0)
        assert source.classes == [["0", "1", "2"], ["a", "b", "c"]][number]
        assert [source.read("train", i)[1:] for i in range(13)] == [(label, data) for label, _, data in images]


def test_images_without_content_are_skipped(tmp_path):
    pytest.importorskip("pyarrow")
    rows = [(label, name, None if i == 0 else data) for i, (label, name, data) in enumerate(PICTURES["train"])]
    dataset = prepared(
        write_parquet(tmp_path / "source", {"train": rows, "validation": PICTURES["validation"]}), tmp_path / "out"
    )
    assert dataset.manifest.skipped == {
        "train/0": f"train/{WNIDS[0]}/{rows[0][1]} has no content in train-00000-of-00002.parquet"
    }
    assert dataset.manifest.splits == {"train": 12, "validation": 3}


def test_webdataset_class_names_and_repeated_keys(tmp_path):
    shards = {
        f"{split}-{shard}.tar": make_tar(
            {f"00{i}.{ext}": data for i in range(3) for ext, data in (("jpg", image), ("txt", f"{i}".encode()))}
        )
        for split in ("train", "val")
        for shard, image in enumerate((PICTURES["train"][0][2], PICTURES["train"][1][2]))
    }
    source = open_source(write_files(tmp_path / "a", shards | {"classes.txt": "owl\ncat\nemu\n"}))
    assert source.classes == ["owl", "cat", "emu"]
    assert [source.read("train", i).name for i in (0, 3)] == ["train/owl/train-0/000.jpg", "train/owl/train-1/000.jpg"]
    assert source.num_left_out == 0
    mapping = "".join(f"{wnid} {name}, synonym\n" for wnid, name in zip(WNIDS, ("tench", "goldfish", "crane"), strict=True))
    source = open_source(write_files(tmp_path / "b", shards | {"LOC_synset_mapping.txt": mapping}))
    assert (source.classes, source.display_names) == (WNIDS, ["tench", "goldfish", "crane"])


def test_webdataset_is_read_in_the_order_of_its_files(tmp_path):
    first, second, third = (data for _, _, data in PICTURES["train"][:3])
    files = {
        "a.u.tar": make_tar({"4.jpg": third, "4.cls": b"0"}),
        "a.tar": make_tar({"2.cls": b"1", "2.jpg": first, "1.jpg": second, "1.json": b'{"label": 0}', "0.jpg": third}),
        "a/0.cls": b"2",  # belongs to an image in the archive with the name of its folder
        "a/3.jpg": second,
        "a/3.cls": b"1",
    }
    source = open_source(write_files(tmp_path / "source", files), held_out=0.0)
    images = [source.read("train", i) for i in range(5)]
    names = [(image.name, image.label) for image in images]
    assert names == [("1/2.jpg", 1), ("0/1.jpg", 0), ("2/0.jpg", 2), ("0/4.jpg", 0), ("1/3.jpg", 1)]
    assert [image.data for image in images] == [first, second, third, third, second]
    assert source.num_left_out == 0


def test_archives_that_are_classes_are_not_taken_for_webdataset(tmp_path):
    files = {f"{name}.tar": make_tar({f"{i}.jpg": PICTURES["train"][i][2] for i in range(2)}) for name in "ab"}
    source = open_source(write_files(tmp_path / "source", files | {"a.txt": b"0", "a/readme.txt": b"notes"}))
    assert (source.description, source.classes) == ("folders of images", ["a", "b"])


def test_tfds_by_name_and_latest_version(tmp_path, monkeypatch):
    folder = write_tfds(tmp_path, LABELED)
    older = folder.with_name("0.9.0")
    older.mkdir()
    for file in folder.iterdir():
        (older / file.name).write_bytes(file.read_bytes().replace(b'"1.0.0"', b'"0.9.0"'))
    for source in (find_source("tfds:tiny", ValidationSplit(), str(tmp_path)), open_source(tmp_path / "tiny")):
        assert source.description == "tfds:tiny/1.0.0"
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert open_source("tfds:tiny:0.9.0").description == "tfds:tiny/0.9.0"
    with pytest.raises(UserError, match=r"other is not prepared in .*: run tfds build other --data_dir=.* as --tfds-dir$"):
        open_source("tfds:other")
    with pytest.raises(UserError, match=r"--tfds-dir /nowhere is not a folder"):
        find_source("tfds:tiny", ValidationSplit(), "/nowhere")


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


def test_parquet_errors(tmp_path, monkeypatch):
    write_table = pytest.importorskip("pyarrow.parquet").write_table
    root = write_parquet(tmp_path / "a")
    file = root / "data" / "train-00001-of-00002.parquet"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        UserError, match=r"train-00001-of-00002.parquet is not a complete Parquet file \(.*\): download it again$"
    ):
        open_source(root)
    write_table(parquet_table(PICTURES["train"], names=["a", "b", "c"]), file)
    with pytest.raises(UserError, match=r"has other columns or classes than"):
        open_source(root)
    write_table(parquet_table(PICTURES["train"]).rename_columns(["image", "caption"]), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"has the columns image, caption, expected image and label"):
        open_source(tmp_path / "b.parquet")
    source = open_source(write_parquet(tmp_path / "c"))
    damaged = (tmp_path / "c" / "data" / "validation-00000-of-00002.parquet").read_bytes()
    (tmp_path / "c" / "data" / "validation-00000-of-00002.parquet").write_bytes(damaged[:100])
    with pytest.raises(UserError, match=r"is not a complete Parquet file"):
        source.read("validation", 0)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"need pyarrow: run pip install 'alexnet-jax\[parquet\]'"):
        open_source(root)


def wds(**files):
    return make_tar({name.replace("_", "."): data for name, data in files.items()})


PICTURE = PICTURES["train"][0][2]
CAPTIONS = {f"{i}_{ext}": data for i in range(9) for ext, data in (("jpg", PICTURE), ("txt", b"a dog, no. %d" % i))}
DAMAGED_WEBDATASETS = {
    "no labels": (
        {"x-0.tar": wds(a_jpg=PICTURE, a_json=b"{}")},
        r"WebDataset format \(x-0/a.jpg, …\), but without labels",
    ),
    "one label missing": ({"x.tar": wds(a_jpg=PICTURE, a_cls=b"0", b_jpg=PICTURE)}, r"1 train images without a label .*x/b.jpg"),
    "mixed": ({"x.tar": wds(a_jpg=PICTURE, a_cls=b"0", b_jpg=PICTURE, b_cls=b"owl")}, r"numbers and others .* names \('owl'\)"),
    "empty label": ({"x.tar": wds(a_jpg=PICTURE, a_cls=b"\n")}, r"a label file with no labels \(x/a.cls\)"),
    "damaged JSON": ({"x.tar": wds(a_jpg=PICTURE, a_json=b"{")}, r"has a damaged file x/a.json"),
    "huge label": ({"x.tar": wds(a_jpg=PICTURE, a_cls=b"9" * 30)}, r"has the label 9{3}(,9{3}){9}, but only 1 images"),
    "captions": ({"x.tar": wds(**CAPTIONS)}, r"has 9 different labels for 9 images, such as captions: add .cls files"),
    "one class": ({"x.tar": wds(a_jpg=PICTURE, a_cls=b"0")}, r"images of one class only \(0\)"),
    "splits in some names": (
        {"train-0.tar": wds(a_jpg=PICTURE, a_cls=b"0"), "x.tar": wds(a_jpg=PICTURE, a_cls=b"1")},
        r"shards with and without a split in their names \(train-0 is of the train split, but x of none\)",
    ),
    "too few names": (
        {"x.tar": wds(a_jpg=PICTURE, a_cls=b"0", b_jpg=PICTURE, b_cls=b"1"), "classes.txt": b"owl\n"},
        r"classes.txt in .* has 1 different names for 2 classes",
    ),
    "truncated": ({"x.tar": wds(a_jpg=PICTURE, a_cls=b"0")[:700]}, r"x.tar is not a complete tar archive"),
}


@pytest.mark.parametrize(("files", "message"), DAMAGED_WEBDATASETS.values(), ids=DAMAGED_WEBDATASETS)
def test_webdataset_errors(tmp_path, files, message):
    with pytest.raises(UserError, match=message) as error:
        open_source(write_files(tmp_path / "source", files))
    assert "\n" not in str(error.value)


def read_to_the_end(source):
    for split, count in source.num_images.items():
        for index in range(count):
            source.read(split, index)


def test_tfds_errors(tmp_path):
    folder = write_tfds(tmp_path / "a")
    file = folder / "tiny-train.tfrecord-00001-of-00002"
    content = file.read_bytes()
    file.write_bytes(content[:-5])
    with pytest.raises(
        UserError, match=r"00001-of-00002 is not a complete TFRecord file \(truncated or damaged at byte [\d,]+\)"
    ):
        read_to_the_end(open_source(folder))
    file.write_bytes(content[:500] + bytes([content[500] ^ 4]) + content[501:])
    with pytest.raises(UserError, match=r"00001-of-00002 is damaged at record 0 \(checksum mismatch\): build the data set again"):
        read_to_the_end(open_source(folder))
    file.write_bytes(content + content)
    with pytest.raises(UserError, match=r"has 12 records, but dataset_info.json 6"):
        read_to_the_end(open_source(folder))
    file.unlink()
    with pytest.raises(UserError, match=r"is incomplete \(tiny-train.tfrecord-00001-of-00002 is missing\)"):
        open_source(folder)
    (folder / "label.labels.txt").write_text("a\nb\n")
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"label.labels.txt has 2 different names for 3 classes"):
        open_source(folder)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "dataset_info.json",
            {"fileFormat": "riegeli"},
            r"in the format riegeli, expected tfrecord or array_record: run tfds convert",
        ),
        ("features.json", {"featuresDict": {"features": {"text": {}}}}, r"has no image and label features, only text"),
        ("features.json", {"featuresDict": None}, r"is not a data set of TensorFlow Datasets that can be read \("),
        ("dataset_info.json", {"splits": []}, r"has no labeled training images: choose a different data set"),
    ],
)
def test_tfds_metadata_errors(tmp_path, file, change, message):
    folder = write_tfds(tmp_path, LABELED)
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | change))
    with pytest.raises(UserError, match=message) as error:
        open_source(folder)
    assert "\n" not in str(error.value)


def test_damaged_array_record_of_tfds(tmp_path):
    folder = write_tfds(tmp_path, LABELED, file_format="array_record")
    file = folder / "tiny-train.array_record-00000-of-00002"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"is damaged"):
        read_to_the_end(open_source(folder))


def test_webdataset_of_one_archive(tmp_path):
    files = {"0.jpg": PICTURE, "0.cls": b"1", "1.jpg": PICTURE, "1.cls": b"0"}
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    source = open_source(tmp_path / "photos.tar", held_out=0.0)
    assert [source.read("train", i)[:2] for i in range(2)] == [("1/0.jpg", 1), ("0/1.jpg", 0)]
