"""Tests of folders and of ImageNet's archives as sources."""

import io
import tarfile

import pytest

from alexnet_jax.data.prepare.convert import PrepareOptions, prepare_path
from alexnet_jax.data.records import unpack
from tests.data.sources.archives import (
    EXPECTED,
    EXTRACTED,
    LABEL_FILES,
    TRAIN,
    VALIDATION,
    WNIDS,
    devkit,
    ilsvrc_archives,
    make_tar,
    make_tar_gz,
    open_source,
    png_image,
    read_all,
    validation_files,
    write_files,
)


@pytest.mark.parametrize("labels", LABEL_FILES.values(), ids=LABEL_FILES)
def test_ilsvrc_2012_archives(tmp_path, labels):
    source = open_source(write_files(tmp_path, ilsvrc_archives() | labels))
    assert source.classes == WNIDS
    assert {split: sorted(images) for split, images in read_all(source).items()} == EXPECTED


def test_ilsvrc_2010_test_labels(tmp_path):
    files = {
        "ILSVRC2010_images_train.tar": make_tar({f"{wnid}.tar": make_tar(files) for wnid, files in TRAIN.items()}),
        "ILSVRC2010_images_val.tar": make_tar(validation_files("val/")),
        "ILSVRC2010_images_test.tar": make_tar(validation_files("test/")),
        "ILSVRC2010_devkit-1.0.tar.gz": make_tar_gz({f"devkit-1.0/{name}": data for name, data in devkit(2010).items()}),
        "ILSVRC2010_test_ground_truth.txt": devkit(2010, split="test")["data/ILSVRC2010_test_ground_truth.txt"],
    }
    images = read_all(open_source(write_files(tmp_path, files)))
    assert sorted(images["validation"]) == sorted(images["test"]) == EXPECTED["validation"]


@pytest.mark.parametrize(
    "files",
    [
        EXTRACTED | validation_files("val/") | LABEL_FILES["classes"],
        EXTRACTED | {f"val/{VALIDATION[i]}/ILSVRC2012_val_{i:08}.JPEG": png_image(100 + i) for i in VALIDATION},
        {f"ILSVRC/Data/CLS-LOC/{name}": data for name, data in (EXTRACTED | validation_files("val/")).items()}
        | LABEL_FILES["kaggle"]
        | {"ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_00000001.JPEG": png_image(1)},
    ],
    ids=["flat", "sorted", "kaggle"],
)
def test_extracted_archives(tmp_path, files):
    images = {split: sorted(images) for split, images in read_all(open_source(write_files(tmp_path, files))).items()}
    images.pop("test", None)
    assert images == EXPECTED


@pytest.mark.parametrize("labels", [{}, {"test.txt": "ILSVRC2012_test_00000001.JPEG 0\n"}], ids=["no label file", "all zero"])
def test_test_images_without_labels_are_kept(tmp_path, labels):
    files = (
        ilsvrc_archives()
        | LABEL_FILES["classes"]
        | {"ILSVRC2012_img_test_v10102019.tar": make_tar({"test/ILSVRC2012_test_00000001.JPEG": png_image(1)})}
    )
    source = open_source(write_files(tmp_path, files | labels))
    assert (list(source.num_images), source.unlabeled) == (["train", "validation", "test"], ["test"])
    name = "ILSVRC2012_img_test_v10102019/test/ILSVRC2012_test_00000001.JPEG"
    assert source.read("test", 0) == (name, -1, png_image(1))


def test_upscaling_is_reported(tmp_path, capsys):
    prepare_path(write_files(tmp_path / "source", EXTRACTED), tmp_path / "out")
    assert "pass --size 16 to keep their resolution" in capsys.readouterr().err


def test_excluded_images_are_reported(tmp_path, capsys):
    files = EXTRACTED | {"train/loose.png": png_image(1), "patch_images.tar": make_tar({"train/n01440764_2.JPEG": png_image(1)})}
    dataset = prepare_path(write_files(tmp_path / "source", files), tmp_path / "out", PrepareOptions(size=8))
    names = ["patch_images/train/n01440764_2.JPEG: outside train", "train/loose.png: in no class folder"]
    assert dataset.manifest.left_out == names
    assert "left out, outside train: patch_images/train/n01440764_2.JPEG\n" in capsys.readouterr().err


def test_full_imagenet_validation_split(tmp_path):
    wnids = [f"n{k:08}" for k in range(4)]
    class_archives = {f"{wnid}.tar": make_tar({f"{wnid}_{i}.JPEG": png_image(i) for i in range(100)}) for wnid in wnids}
    source = open_source(write_files(tmp_path / "fall09", class_archives), held_out=0.5)
    assert source.classes == wnids
    assert 150 < source.num_images["train"] < 250
    assert sum(source.num_images.values()) == 400
    assert read_all(open_source(tmp_path / "fall09", held_out=0.5)) == read_all(source)
    assert read_all(open_source(tmp_path / "fall09", held_out=0.5, seed=1)) != read_all(source)
    # Fall 2011 is distributed as one archive of archives.
    (tmp_path / "fall11_whole.tar").write_bytes(make_tar(class_archives))
    assert read_all(open_source(tmp_path / "fall11_whole.tar", held_out=0.5)) == read_all(source)
    assert (
        "validation"
        not in prepare_path(tmp_path / "fall09", tmp_path / "out", PrepareOptions(size=8, held_out=0.0)).manifest.splits
    )


def test_tar_formats_and_long_names(tmp_path):
    for number, format in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        name = "x" * 150 + "é.png"
        files = {f"./{c}/{name}": png_image(k) for k, c in enumerate("ab")} | {"./a/._hidden.png": b""}
        path = tmp_path / f"{number}.tar"
        path.write_bytes(make_tar(files, format=format))
        assert read_all(open_source(path, held_out=0.0))["train"] == [("a", name, png_image(0)), ("b", name, png_image(1))]


def test_links_in_archives_are_left_out(tmp_path):
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as tar:
        for k, c in enumerate("ab"):
            member = tarfile.TarInfo(f"{c}/1.png")
            member.size = len(png_image(k))
            tar.addfile(member, io.BytesIO(png_image(k)))
        link = tarfile.TarInfo("a/2.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    source = open_source(path)
    assert source.num_images["train"] == 2
    assert source.left_out == {"a/2.png": "a link or special file in an archive"}


def test_names_and_labels_of_records(tmp_path):
    from array_record.python.array_record_module import ArrayRecordReader

    dataset = prepare_path(
        write_files(tmp_path / "source", ilsvrc_archives() | LABEL_FILES["classes"]),
        tmp_path / "out",
        PrepareOptions(size=16, raw=True),
    )
    assert dataset.manifest.counts == {"train": [2, 2, 2], "validation": [1, 1, 2]}
    reader = ArrayRecordReader(dataset.shards("validation")[0])
    records = [unpack(data) for data in reader.read_all()]
    reader.close()
    assert [record.label for record in records] == [0, 1, 2, 2]
    assert [record.name for record in records] == [f"ILSVRC2012_img_val/ILSVRC2012_val_{i:08}.JPEG" for i in (3, 4, 1, 2)]
    assert [record.image[0] for record in records] == [103, 104, 101, 102], "red value of the first raw pixel"
