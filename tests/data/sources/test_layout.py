"""Tests of the recognition of layouts, and property tests: every file is counted, and every class has a training image."""

import hashlib
import os
import tarfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alexnet_jax.data.find import find_dataset
from alexnet_jax.data.prepare.convert import PrepareOptions, prepare_path
from alexnet_jax.data.sources.held_out import ValidationSplit
from alexnet_jax.data.sources.layout import CLASS_FOLDERS, check_outside, folder_split
from alexnet_jax.data.sources.registry import find_source
from alexnet_jax.errors import UserError
from tests.data.sources.archives import make_tar, open_source, png_image, write_files


def tree(*folders, images=2, suffix="png"):
    return {f"{folder}/{i}.{suffix}": png_image(i + 10 * k) for k, folder in enumerate(folders) for i in range(images)}


RECOGNIZED = {
    "upper case": (tree("TRAIN/a", "TRAIN/b", "VALID/a", "VALID/b"), ["a", "b"], {"train": 4, "validation": 4}),
    "words": (tree("train-images/a", "train-images/b", "Test Images/b"), ["a", "b"], {"train": 4, "test": 2}),
    "one word": (tree("trainset/a", "trainset/b", "testset/b"), ["a", "b"], {"train": 4, "test": 2}),
    "two folders around": (tree("x/y/train/a", "x/y/train/b", "x/y/val/b"), ["a", "b"], {"train": 4, "validation": 2}),
    "folder around classes of a split": (tree("train/z/a", "train/z/b", "val/a"), ["a", "b"], {"train": 4, "validation": 2}),
    "folder in an archive": ({"z.tar": make_tar(tree("./z/a", "./z/b"))}, ["a", "b"], {"train": 3, "validation": 1}),
    "class called train": (tree("bus", "car", "train"), ["bus", "car", "train"], {"train": 5, "validation": 1}),
    "class names with words of splits": (tree("test tube", "train station"), ["test tube", "train station"], None),
    "subfolders of classes": (tree("a/x", "a/y", "b/x"), ["a", "b"], None),
    "other suffixes": (tree("a", "b", suffix="JPG_large"), ["a", "b"], None),
}


@pytest.mark.parametrize(("files", "classes", "num_images"), RECOGNIZED.values(), ids=RECOGNIZED)
def test_recognized_layouts(tmp_path, files, classes, num_images):
    source = open_source(write_files(tmp_path, files), held_out=0.01)
    assert source.classes == classes
    assert not source.left_out
    if num_images:
        assert source.num_images == num_images


WEBDATASET = {name: content for i in range(3) for name, content in ((f"{i}.png", png_image(i)), (f"{i}.json", b"{}"))}
REFUSED = {
    "WebDataset with JSON": ({"x-0.tar": make_tar(WEBDATASET)}, "is in the WebDataset format .*0.png, …., but without labels"),
    "unpacked WebDataset": ({"x/0.png": png_image(1), "x/0.cls": b"1"}, r"has the label 1, but only 1 images"),
    "tables": ({"a.arrow": b"x", "b.txt": b"x"}, r"has Arrow files \(a.arrow\)"),
    "numbered splits": (tree("train1/a", "test1/a"), "folders test1, train1, which look like splits: rename"),
    "splits in classes": (tree("a/train", "a/test", "b/train"), r"splits inside its classes \(b/train/1.png\)"),
    "two spellings": (tree("Train/a", "train/b"), "has both Train and train for the train split"),
    "class without images": (tree("a", "b") | {"c/readme": b"text"}, r"without images that can be read: c;"),
    "class of the train split without images": (tree("train/a", "train/b", "val/a") | {"train/c/x.png": b""}, "train/c"),
    "photos only": ({"0.png": png_image(0)}, r"has 1 images without a class folder \(0.png, …\): move each image"),
    "one class": (tree("a"), r"images of one class only \(a\)"),
    "one class in the train split": (tree("train/a", "val/a", "val/b"), r"val.* classes without training|one class only"),
    "composed and decomposed": (tree("e\u0301", "\u00e9"), "differ in their Unicode form only"),
}


@pytest.mark.parametrize(("files", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_layouts(tmp_path, files, message):
    with pytest.raises(UserError, match=message) as error:
        open_source(write_files(tmp_path, files))
    assert "\n" not in str(error.value)


def test_classes_that_look_alike_are_named(tmp_path, capsys):
    source = open_source(write_files(tmp_path, tree("Cat", "cat", "dog ", "dog", "fox")))
    assert source.classes == ["Cat", "cat", "dog", "dog ", "fox"]
    message = "differ only in case or spaces: 'Cat' and 'cat', 'dog' and 'dog '; merge those of the same class"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("name", "split"), [("dev", "validation"), ("Testing", "test"), ("retrain", None), ("trainer", None)])
def test_names_of_splits(name, split):
    assert folder_split(name) == split


NAMES = st.sampled_from(
    [
        "1.png",
        "2.PNG",
        "3",
        "._4.png",
        ".DS_Store",
        "Thumbs.db",
        "x.heic",
        "y.txt",
        "z.tar.gz",
        "empty.png",
        "link.png",
        "loop.png",
    ]
)
FOLDERS = st.sampled_from(["", "a/", "b/", "b/more/", "__MACOSX/", "$RECYCLE.BIN/a/", ".git/"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.tuples(FOLDERS, NAMES), max_size=20), st.booleans())
def test_read_and_left_out_files_are_all_files(tmp_path_factory, files, archived):
    root = write_files(tmp_path_factory.mktemp("tree"), tree("a", "b") | {"a/caf\udce9.png": png_image(9)})
    for number, (folder, name) in enumerate(sorted(files)):
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.stem in ("link", "loop"):
            path.symlink_to("nowhere" if path.stem == "link" else name)
        else:
            path.unlink(missing_ok=True)
            is_image = path.suffix.lower() in (".png", "") and not name.startswith(".")
            path.write_bytes(b"" if path.stem == "empty" else png_image(number) if is_image else b"\0text")
    seen = {f"{folder}/{file}" for folder, _, names in os.walk(root) for file in names}
    if archived:
        with tarfile.open(root.with_suffix(".tar"), "w") as tar:
            tar.add(root, ".")
        root = root.with_suffix(".tar")
    source = open_source(root)
    read = [source.read(split, index).name for split, count in source.num_images.items() for index in range(count)]
    assert len(read) + source.num_left_out == len(seen)
    assert len({*read, *source.left_out}) == len(seen), "every file has a name of its own"
    assert source.classes == ["a", "b"]
    assert {PurePosixPath(name).parts[0] for name in read} == {"a", "b"}
    assert r"a/caf\xe9.png" in read
    for name in (*source.left_out, *read):
        name.encode()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.one_of(st.just(0.0), st.floats(0.001, 0.999)),
    st.integers(0, 99),
)
def test_held_out_images(sizes, held_out, seed):
    images = [(str(label), f"{label}/{i}") for label, size in enumerate(sizes) for i in range(size)]
    selected = ValidationSplit(held_out, seed).select(images).tolist()
    in_reverse = ValidationSplit(held_out, seed).select(reversed(images)).tolist()
    assert selected == in_reverse[::-1], "the order of the images has no influence"
    hashes = {name: int(hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()[:16], 16) for _, name in images}
    kept = {max((hashes[name], name) for class_name, name in images if class_name == str(c))[1] for c in range(len(sizes))}
    expected = [name not in kept and hashes[name] < held_out * 2**64 for _, name in images]
    if any(expected) or not held_out or max(sizes) == 1:
        assert selected == expected
    else:
        assert sum(selected) == 1
        assert hashes[images[selected.index(True)][1]] == min(hashes[name] for name in hashes.keys() - kept)


def test_class_whose_images_cannot_be_decoded_is_named(tmp_path):
    files = tree("train/a", "train/b", "val/a") | {"train/c/1.png": b"no image", "train/c/2.png": b"no image"}
    with pytest.raises(UserError, match=r"no train image of c can be read \(train/c/1.png: unsupported"):
        prepare_path(write_files(tmp_path / "photos", files), tmp_path / "out", PrepareOptions(size=8))
    assert not (tmp_path / "out").exists()


def test_all_images_without_splits_are_tested(tmp_path):
    photos = write_files(tmp_path / "photos", tree("a", "b", images=15))
    trained = find_dataset(str(photos), "", tmp_path / "data")
    assert sum(trained.manifest.splits.values()) == 30
    tested = find_dataset(str(photos), "", tmp_path / "data", testing=True)
    assert (tested.manifest.splits, tested.evaluation_split) == ({"test": 30}, "test")
    assert tested.mean_image.shape == (256, 256, 3)
    only_test = write_files(tmp_path / "only", tree("test/a", "test/b"))
    assert find_dataset(str(only_test), "", tmp_path / "data", testing=True).manifest.splits == {"test": 4}
    with pytest.raises(UserError, match="no images in train"):
        find_source(str(only_test), ValidationSplit())
    both = write_files(tmp_path / "both", tree("train/a", "train/b", "val/a"))
    datasets = [find_dataset(str(both), "", tmp_path / "data", testing=testing) for testing in (True, False)]
    assert datasets[0].path == datasets[1].path


def test_outputs_among_the_classes_are_refused(tmp_path, monkeypatch):
    root = write_files(tmp_path / "photos", tree("a", "b"))
    monkeypatch.chdir(root)
    message = "data is inside .*, where it would be read as a class: choose a different --data-dir"
    with pytest.raises(UserError, match=message):
        find_dataset(".", ".", Path("data"))
    with pytest.raises(UserError, match=r"x is inside .*: choose a different --to"):
        prepare_path(root, Path("a/x"), PrepareOptions(size=8))
    assert {file.name for file in root.iterdir()} == {"a", "b"}
    dataset = find_dataset(".", ".", tmp_path / "data")
    assert sum(dataset.manifest.splits.values()) == 4


def test_outputs_beside_the_splits_are_accepted(tmp_path):
    root = write_files(tmp_path / "photos", tree("train/a", "train/b", "val/a", "val/b"))
    for allowed in (root / "data", tmp_path / "photos2", tmp_path):
        check_outside(CLASS_FOLDERS, root, allowed, "--to")
    for refused in (root, root / "val" / "data"):
        with pytest.raises(UserError, match="choose a different --to"):
            check_outside(CLASS_FOLDERS, root, refused, "--to")
    first = find_dataset(str(root), "", root / "data").path
    assert find_dataset(str(root), "", root / "data").path == first


@pytest.mark.parametrize(("name", "stem"), [("фото 2", "фото-2-"), ("日" * 80, "日" * 33 + "-"), ("n" * 250, "n" * 100 + "-")])
def test_names_of_data_sets(tmp_path, name, stem):
    root = write_files(tmp_path / name, tree("a", "b"))
    assert find_dataset(str(root), "", tmp_path / "data").path.name.startswith(stem)
