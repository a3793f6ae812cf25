"""Tests of the messages about folders and archives that are damaged or incomplete."""

import io
import tarfile

import pytest

from alexnet_jax.errors import UserError
from tests.data.sources.archives import (
    LABEL_FILES,
    TRAIN,
    WNIDS,
    devkit,
    flip_bit,
    ilsvrc_archives,
    make_tar,
    open_source,
    png_image,
    read_all,
    truncate,
    write_files,
)

SYNSET_LABELS = LABEL_FILES["classes"]["imagenet_2012_validation_synset_labels.txt"]
INVALID_SOURCES = {
    "truncated train archive": (
        ilsvrc_archives() | {"ILSVRC2012_img_train.tar": truncate(ilsvrc_archives()["ILSVRC2012_img_train.tar"], 0.6)},
        "download it again",
    ),
    "truncated between two files": (
        ilsvrc_archives() | {"ILSVRC2012_img_val.tar": ilsvrc_archives()["ILSVRC2012_img_val.tar"][:1024]},
        r"img_val.tar is not a complete tar archive \(truncated or damaged at byte 1,024\): download it again",
    ),
    "truncated nested archive": (
        ilsvrc_archives() | {"ILSVRC2012_img_train.tar": make_tar({"n01440764.tar": make_tar(TRAIN[WNIDS[0]])[:1536]})},
        r"img_train.tar:n01440764.tar is not a complete tar archive",
    ),
    "damaged header": (
        ilsvrc_archives() | {"ILSVRC2012_img_val.tar": flip_bit(ilsvrc_archives()["ILSVRC2012_img_val.tar"], 1024 + 5)},
        r"damaged at byte 1,024",
    ),
    "not an archive": (
        ilsvrc_archives() | {"ILSVRC2012_img_val.tar": b"<html>404</html>" * 100},
        "is not a complete tar archive",
    ),
    "parent path": (
        ilsvrc_archives() | {"x.tar": make_tar({"../../etc/x.png": b""})},
        "unsafe path .*: use an archive from a trusted source",
    ),
    "absolute path": (
        ilsvrc_archives() | {"x.tar": make_tar({"/etc/x.png": b""})},
        "unsafe path .*: use an archive from a trusted source",
    ),
    "missing labels": (ilsvrc_archives(), "no label file for its validation images: add one of .*synset_labels.txt, val.txt"),
    "too few labels": (
        ilsvrc_archives() | {"validation_synset_labels.txt": SYNSET_LABELS[10:]},
        "has 3 labels for 4 validation images",
    ),
    "too many labels": (
        ilsvrc_archives() | {"validation_synset_labels.txt": SYNSET_LABELS + SYNSET_LABELS},
        "has 8 labels for 4",
    ),
    "unknown class": (
        ilsvrc_archives() | {"validation_synset_labels.txt": SYNSET_LABELS.replace(WNIDS[2], "n99999999")},
        "has the class n99999999, which has no training images",
    ),
    "image without label": (ilsvrc_archives() | {"val.txt": "a 0\nb 0\nc 0\nd 0\n"}, "val.txt has no label for ILSVRC2012"),
    "image with two labels": (ilsvrc_archives() | {"val.txt": "a 0\nb 0\nc 0\na 0\n"}, "more than one label for an image"),
    "line without label": (ilsvrc_archives() | {"val.txt": "a 0\nb 0\nc\nd 0\n"}, "lines without a label"),
    "class numbers without names": (
        ilsvrc_archives() | {"validation_ground_truth.txt": "1\n2\n3\n1\n"},
        "has class numbers only: put .* meta.mat",
    ),
    "damaged development kit": (
        ilsvrc_archives() | {"devkit.tar.gz": truncate(LABEL_FILES["development kit"]["ILSVRC2012_devkit_t12.tar.gz"], 0.5)},
        "damaged .*download it",
    ),
    "damaged meta.mat": (
        ilsvrc_archives() | {"validation_ground_truth.txt": "1\n2\n3\n1\n", "meta.mat": truncate(devkit()["data/meta.mat"], 0.5)},
        "meta.mat of the development kit is damaged",
    ),
    "archive and folder of a split": (
        ilsvrc_archives() | {"ILSVRC2012_img_train/x.txt": b"", "train/n01440764/1.png": png_image(1)},
        "has both ILSVRC2012_img_train and train for the train split",
    ),
    "duplicate name": (
        {"a/1.png": png_image(1), "a.tar": make_tar({"1.png": png_image(1)}), "b/1.png": png_image(1)},
        r"a.tar and .*a/1.png both contain a/1.png",
    ),
    "one class": ({"x.tar": make_tar({f"{i}.png": png_image(i) for i in range(9)})}, r"one class only \(x\)"),
    "two folders of a split": (
        {f"{split}/a/1.png": png_image(1) for split in ("val", "valid", "train")},
        "has both val and valid",
    ),
    "class without training images": (
        {name: png_image(1) for name in ("train/a/1.png", "train/b/1.png", "val/c/1.png")},
        "classes without training images: c",
    ),
    "no images": ({"readme.txt": b""}, "has no images; expected train/<class>"),
    "unsupported archive": ({"photos.zip": b"PK"}, "has no images"),
}


@pytest.mark.parametrize(("files", "message"), INVALID_SOURCES.values(), ids=INVALID_SOURCES)
def test_invalid_source_errors(tmp_path, files, message):
    with pytest.raises(UserError, match=message) as error:
        open_source(write_files(tmp_path / "source", files))
    assert "\n" not in str(error.value)


def test_duplicate_name_in_archive(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("a/1.png", "b/1.png", "a/1.png"):
            member = tarfile.TarInfo(name)
            member.size = len(png_image(1))
            tar.addfile(member, io.BytesIO(png_image(1)))
    with pytest.raises(UserError, match=r"both contain a/1\.png"):
        open_source(tmp_path / "x.tar")


def test_unsupported_paths(tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist: pass a folder with train/<class>.*cifar-10-python"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"photos.zip is a compressed archive: unpack it, and pass the folder"):
        open_source(tmp_path / "photos.zip")
    (tmp_path / "loop" / "a").mkdir(parents=True)
    (tmp_path / "loop" / "a" / "again").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match="is a link to one of its parent folders"):
        open_source(tmp_path / "loop")
    (tmp_path / "deep" / "/".join(["x"] * 300)).mkdir(parents=True)
    with pytest.raises(UserError, match="deep has more than 100 folders inside one another: pass a folder of images"):
        open_source(tmp_path / "deep")


def test_truncated_or_deleted_archive(tmp_path):
    source = open_source(write_files(tmp_path / "s", ilsvrc_archives() | LABEL_FILES["classes"]))
    path = tmp_path / "s" / "ILSVRC2012_img_train.tar"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="is shorter than when it was listed"):
        read_all(source)
    path.unlink()
    with pytest.raises(UserError, match=r"cannot read .*No such file"):
        read_all(source)
