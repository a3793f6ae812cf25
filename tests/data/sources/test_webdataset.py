"""Tests of archives in WebDataset format as a source."""

import io
import tarfile

import pytest

from alexnet_jax.errors import UserError
from tests.data.sources.archives import WNIDS, make_tar, open_source, write_files
from tests.data.sources.shard_files import PICTURES


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


def test_webdataset_of_one_archive(tmp_path):
    files = {"0.jpg": PICTURE, "0.cls": b"1", "1.jpg": PICTURE, "1.cls": b"0"}
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    source = open_source(tmp_path / "photos.tar", held_out=0.0)
    assert [source.read("train", i)[:2] for i in range(2)] == [("1/0.jpg", 1), ("0/1.jpg", 0)]
