"""What people have: folders, archives as ImageNet and CIFAR are distributed, data that TFDS has prepared."""

import gzip
import io
import os
import pickle
import sys
import tarfile
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from alexnet_jax.data.prepare.convert import PrepareOptions, prepare, prepare_path
from alexnet_jax.data.records import unpack
from alexnet_jax.data.sources.cifar import LAYOUTS
from alexnet_jax.data.sources.folders import ValidationSplit
from alexnet_jax.data.sources.registry import find_source
from alexnet_jax.errors import UserError

WNIDS = ["n01440764", "n01443537", "n02012849"]


def picture(number):
    """A PNG that tells its number."""
    file = io.BytesIO()
    Image.new("RGB", (20, 16), (number % 256, number // 256, 7)).save(file, "PNG")
    return file.getvalue()


def archive(files, format=tarfile.DEFAULT_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def packed(files):
    """As in .tar.gz."""
    return gzip.compress(archive(files))


def write(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return root


def find(path, **kwargs):
    return find_source(str(path), ValidationSplit(**kwargs))


def contents(source):
    """Class, file name and bytes of every picture, by split."""
    return {
        split: [
            (source.classes[label], name.split("/")[-1], data)
            for name, label, data in (source.read(split, index) for index in range(images))
        ]
        for split, images in source.images.items()
    }


TRAIN = {wnid: {f"{wnid}_{i}.JPEG": picture(10 * k + i) for i in (2, 10)} for k, wnid in enumerate(WNIDS)}
# The pictures' labels, and their order in the archive, are not in the order of their numbers.
VALIDATION = {4: WNIDS[1], 1: WNIDS[2], 3: WNIDS[0], 2: WNIDS[2]}
EXPECTED = {
    "train": sorted((wnid, name, data) for wnid, files in TRAIN.items() for name, data in files.items()),
    "validation": sorted((wnid, f"ILSVRC2012_val_{i:08}.JPEG", picture(100 + i)) for i, wnid in VALIDATION.items()),
}


def val_files(folder=""):
    return {f"{folder}ILSVRC2012_val_{i:08}.JPEG": picture(100 + i) for i in VALIDATION}


def kit(year=2012, *, split="validation"):
    """The development kit's files: its numbers are in an order of their own, and it names groups of classes, too."""
    order = [WNIDS[2], WNIDS[0], WNIDS[1]]
    synsets = np.empty((4, 1), [(f"ILSVRC{year}_ID", "O"), ("WNID", "O"), ("num_children", "O")])
    for i, wnid in enumerate([*order, "n00000001"]):
        synsets[i, 0] = (np.array([[i + 1]], np.uint16), wnid, np.array([[3 if i == 3 else 0]], np.uint8))
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets}, do_compression=True)
    truth = "".join(f"{order.index(VALIDATION[i]) + 1}\n" for i in sorted(VALIDATION))
    return {"data/meta.mat": meta.getvalue(), f"data/ILSVRC{year}_{split}_ground_truth.txt": truth.encode()}


def tars():
    """ILSVRC-2012 as it is distributed, in miniature."""
    return {
        "ILSVRC2012_img_train.tar": archive({f"{wnid}.tar": archive(files) for wnid, files in TRAIN.items()}),
        "ILSVRC2012_img_val.tar": archive(val_files()),
    }


LISTS = {
    "classes": {"imagenet_2012_validation_synset_labels.txt": "".join(f"{VALIDATION[i]}\n" for i in sorted(VALIDATION))},
    "caffe": {"val.txt": "".join(f"ILSVRC2012_val_{i:08}.JPEG {WNIDS.index(wnid)}\n" for i, wnid in VALIDATION.items())},
    "kaggle": {
        "LOC_val_solution.csv": "ImageId,PredictionString\n"
        + "".join(f"ILSVRC2012_val_{i:08},{wnid} 1 2 3 4 {wnid} 5 6 7 8 \n" for i, wnid in VALIDATION.items())
    },
    "development kit": {
        "ILSVRC2012_devkit_t12.tar.gz": packed({f"ILSVRC2012_devkit_t12/{name}": data for name, data in kit().items()})
    },
    "unpacked kit": {f"ILSVRC2012_devkit_t12/{name}": data for name, data in kit().items()},
}


@pytest.mark.parametrize("labels", LISTS.values(), ids=LISTS)
def test_ilsvrc_2012_as_distributed(tmp_path, labels):
    source = find(write(tmp_path, tars() | labels))
    assert source.classes == WNIDS
    assert {split: sorted(found) for split, found in contents(source).items()} == EXPECTED


def test_ilsvrc_2010_has_labels_of_its_test_pictures(tmp_path):
    files = {
        "ILSVRC2010_images_train.tar": archive({f"{wnid}.tar": archive(files) for wnid, files in TRAIN.items()}),
        "ILSVRC2010_images_val.tar": archive(val_files("val/")),
        "ILSVRC2010_images_test.tar": archive(val_files("test/")),
        "ILSVRC2010_devkit-1.0.tar.gz": packed({f"devkit-1.0/{name}": data for name, data in kit(2010).items()}),
        "ILSVRC2010_test_ground_truth.txt": kit(2010, split="test")["data/ILSVRC2010_test_ground_truth.txt"],
    }
    found = contents(find(write(tmp_path, files)))
    assert sorted(found["validation"]) == sorted(found["test"]) == EXPECTED["validation"]


EXTRACTED = {f"train/{wnid}/{name}": data for wnid, files in TRAIN.items() for name, data in files.items()}


@pytest.mark.parametrize(
    "files",
    [
        EXTRACTED | val_files("val/") | LISTS["classes"],
        EXTRACTED | {f"val/{VALIDATION[i]}/ILSVRC2012_val_{i:08}.JPEG": picture(100 + i) for i in VALIDATION},
        {f"ILSVRC/Data/CLS-LOC/{name}": data for name, data in (EXTRACTED | val_files("val/")).items()}
        | LISTS["kaggle"]
        | {"ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_00000001.JPEG": picture(1)},
    ],
    ids=["flat", "sorted", "kaggle"],
)
def test_extracted_trees_are_the_same(tmp_path, files):
    assert {split: sorted(found) for split, found in contents(find(write(tmp_path, files))).items()} == EXPECTED


@pytest.mark.parametrize("labels", [{}, {"test.txt": "ILSVRC2012_test_00000001.JPEG 0\n"}], ids=["no list", "all zero"])
def test_test_pictures_without_labels_are_left_out(tmp_path, labels):
    files = (
        tars()
        | LISTS["classes"]
        | {"ILSVRC2012_img_test_v10102019.tar": archive({"test/ILSVRC2012_test_00000001.JPEG": picture(1)})}
    )
    source = find(write(tmp_path, files | labels))
    assert list(source.images) == ["train", "validation"]
    assert source.notes == ("1 test pictures, which have no labels",)


def test_small_pictures_are_noticed(tmp_path, capsys):
    prepare_path(write(tmp_path / "source", EXTRACTED), tmp_path / "out")
    assert "--size 16 keeps such as they are" in capsys.readouterr().err


def test_what_is_left_out_is_noted(tmp_path, capsys):
    files = EXTRACTED | {"train/loose.png": picture(1), "patch_images.tar": archive({"train/n01440764_2.JPEG": picture(1)})}
    dataset = prepare_path(write(tmp_path / "source", files), tmp_path / "out", PrepareOptions(size=8))
    assert dataset.manifest.left_out == ["1 pictures outside train", "1 train pictures that are in no class's folder"]
    assert "left out 1 pictures outside train" in capsys.readouterr().err


def test_the_whole_imagenet_is_divided_by_a_rule(tmp_path):
    names = [f"n{k:08}" for k in range(4)]
    tars = {f"{wnid}.tar": archive({f"{wnid}_{i}.JPEG": picture(i) for i in range(100)}) for wnid in names}
    source = find(write(tmp_path / "fall09", tars), held_out=0.5)
    assert source.classes == names
    assert 150 < source.images["train"] < 250
    assert sum(source.images.values()) == 400
    assert contents(find(tmp_path / "fall09", held_out=0.5)) == contents(source)
    assert contents(find(tmp_path / "fall09", held_out=0.5, seed=1)) != contents(source)
    # One archive of archives, as Fall 2011 comes, gives the same.
    (tmp_path / "fall11_whole.tar").write_bytes(archive(tars))
    assert contents(find(tmp_path / "fall11_whole.tar", held_out=0.5)) == contents(source)
    assert (
        "validation"
        not in prepare_path(tmp_path / "fall09", tmp_path / "out", PrepareOptions(size=8, held_out=0.0)).manifest.splits
    )


def test_other_archive_formats_and_long_names(tmp_path):
    for number, format in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        name = "x" * 150 + "é.png"
        files = {f"./{c}/{name}": picture(k) for k, c in enumerate("ab")} | {"./a/._hidden.png": b""}
        path = tmp_path / f"{number}.tar"
        path.write_bytes(archive(files, format=format))
        assert contents(find(path, held_out=0.0))["train"] == [("a", name, picture(0)), ("b", name, picture(1))]


def test_links_are_not_followed(tmp_path, capsys):
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as tar:
        for k, c in enumerate("ab"):
            member = tarfile.TarInfo(f"{c}/1.png")
            member.size = len(picture(k))
            tar.addfile(member, io.BytesIO(picture(k)))
        link = tarfile.TarInfo("a/2.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert find(path).images["train"] == 2
    assert "left out 1 links" in capsys.readouterr().err


def cut(data, share):
    return data[: int(len(data) * share)]


def flipped(data, byte):
    return data[:byte] + bytes([data[byte] ^ 0x40]) + data[byte + 1 :]


LABELS = LISTS["classes"]["imagenet_2012_validation_synset_labels.txt"]
FAULTS = {
    "train archive cut short": (
        tars() | {"ILSVRC2012_img_train.tar": cut(tars()["ILSVRC2012_img_train.tar"], 0.6)},
        "fetch it again",
    ),
    "cut between two files": (
        tars() | {"ILSVRC2012_img_val.tar": tars()["ILSVRC2012_img_val.tar"][:1024]},
        r"img_val.tar is no whole tar archive \(cut short or damaged at byte 1,024\): fetch it again",
    ),
    "inner archive cut short": (
        tars() | {"ILSVRC2012_img_train.tar": archive({"n01440764.tar": archive(TRAIN[WNIDS[0]])[:1536]})},
        r"img_train.tar:n01440764.tar is no whole tar archive",
    ),
    "header damaged": (
        tars() | {"ILSVRC2012_img_val.tar": flipped(tars()["ILSVRC2012_img_val.tar"], 1024 + 5)},
        r"damaged at byte 1,024",
    ),
    "no archive": (tars() | {"ILSVRC2012_img_val.tar": b"<html>404</html>" * 100}, "is no whole tar archive"),
    "leads out": (tars() | {"x.tar": archive({"../../etc/x.png": b""})}, "leads out of it: do not trust"),
    "absolute": (tars() | {"x.tar": archive({"/etc/x.png": b""})}, "leads out of it: do not trust"),
    "labels missing": (tars(), "no list of labels for the validation pictures, looked for .*synset_labels.txt, val.txt"),
    "too few labels": (
        tars() | {"validation_synset_labels.txt": LABELS[10:]},
        "has 3 labels for 4 validation pictures",
    ),
    "too many labels": (tars() | {"validation_synset_labels.txt": LABELS + LABELS}, "has 8 labels for 4"),
    "unknown class": (
        tars() | {"validation_synset_labels.txt": LABELS.replace(WNIDS[2], "n99999999")},
        "has the class n99999999, of which there are no training pictures",
    ),
    "picture not in the list": (tars() | {"val.txt": "a 0\nb 0\nc 0\nd 0\n"}, "val.txt has no label for ILSVRC2012"),
    "picture twice in the list": (tars() | {"val.txt": "a 0\nb 0\nc 0\na 0\n"}, "two labels for the same picture"),
    "line without label": (tars() | {"val.txt": "a 0\nb 0\nc\nd 0\n"}, "lines without a label"),
    "numbers without names": (
        tars() | {"validation_ground_truth.txt": "1\n2\n3\n1\n"},
        "gives classes by number: put .* meta.mat",
    ),
    "damaged kit": (
        tars() | {"devkit.tar.gz": cut(LISTS["development kit"]["ILSVRC2012_devkit_t12.tar.gz"], 0.5)},
        "damaged .*fetch it",
    ),
    "damaged meta.mat": (
        tars() | {"validation_ground_truth.txt": "1\n2\n3\n1\n", "meta.mat": cut(kit()["data/meta.mat"], 0.5)},
        "meta.mat of the development kit is damaged",
    ),
    "archive and its folder": (
        tars() | {"ILSVRC2012_img_train/x.txt": b"", "train/n01440764/1.png": picture(1)},
        "has both ILSVRC2012_img_train and train for train",
    ),
    "same name twice": (
        {"a/1.png": picture(1), "a.tar": archive({"1.png": picture(1)}), "b/1.png": picture(1)},
        r"a.tar and .*a/1.png both hold a/1.png",
    ),
    "one class": ({"x.tar": archive({f"{i}.png": b"" for i in range(9)})}, r"one class only \(x\)"),
    "two folders for a split": ({"val/a/1.png": b"", "valid/a/1.png": b"", "train/a/1.png": b""}, "has both val and valid"),
    "unknown class folder": ({"train/a/1.png": b"", "train/b/1.png": b"", "val/c/1.png": b""}, "classes that train lacks: c"),
    "nothing": ({"readme.txt": b""}, "holds no images: looked for train/<class>"),
    "only archives of another kind": ({"photos.zip": b"PK"}, "holds no images"),
}


@pytest.mark.parametrize(("files", "message"), FAULTS.values(), ids=FAULTS)
def test_faults_are_one_line_that_says_what_to_do(tmp_path, files, message):
    with pytest.raises(UserError, match=message) as caught:
        find(write(tmp_path / "source", files))
    assert "\n" not in str(caught.value)


def test_two_files_of_one_name_in_an_archive(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("a/1.png", "b/1.png", "a/1.png"):
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(UserError, match=r"both hold a/1\.png"):
        find(tmp_path / "x.tar")


def test_paths_of_no_use(tmp_path):
    with pytest.raises(
        UserError, match=r"nowhere is not a folder with train/<class>.*cifar-10-python.*: there is nothing of this name"
    ):
        find(tmp_path / "nowhere")
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"is not a folder with train/<class>.*unpack it first"):
        find(tmp_path / "photos.zip")
    (tmp_path / "loop" / "a").mkdir(parents=True)
    (tmp_path / "loop" / "a" / "again").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match="is a link to a folder it lies in"):
        find(tmp_path / "loop")


def test_a_source_that_shrinks_is_noticed(tmp_path):
    source = find(write(tmp_path / "s", tars() | LISTS["classes"]))
    path = tmp_path / "s" / "ILSVRC2012_img_train.tar"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="has become shorter"):
        contents(source)
    path.unlink()
    with pytest.raises(UserError, match=r"cannot read .*No such file"):
        contents(source)


# CIFAR: 3 images a file; every byte of an image tells its number.


def cifar_files(layout, rng):
    classes = [f"class{i}" for i in range(100 if "100" in layout.archive else 10)]
    key = layout.labels.removesuffix("s").encode() + b"_names"
    files = {layout.names: "\n".join(classes).encode() + b"\n\n" if layout.binary else pickle.dumps({key: classes}, 2)}
    for file in (file for found in layout.splits.values() for file in found):
        images = rng.integers(0, 256, (3, 3072), np.uint8)
        labels = rng.integers(0, len(classes), 3)
        if layout.binary:
            rows = [
                bytes([9] * (layout.label_bytes - 1) + [label]) + image.tobytes()
                for image, label in zip(images, labels, strict=True)
            ]
            files[file] = b"".join(rows)
        else:
            content = pickle.dumps({b"data": images, layout.labels.encode(): labels.tolist(), b"batch_label": b"x"}, 2)
            files[file] = content.replace(b"numpy._core.", b"numpy.core.")  # as NumPy was then
    return files


@pytest.mark.parametrize("layout", LAYOUTS, ids=[layout.archive for layout in LAYOUTS])
def test_cifar(tmp_path, layout):
    """Archive, folder, and the folder of either; the binary and the python archive hold the same."""
    files = cifar_files(layout, np.random.default_rng(0))
    write(tmp_path / "a", {layout.archive: packed({f"{layout.folder}/{name}": data for name, data in files.items()})})
    write(tmp_path / "b" / layout.folder, files)
    sources = [
        find(path) for path in (tmp_path / "a", tmp_path / "a" / layout.archive, tmp_path / "b", tmp_path / "b" / layout.folder)
    ]
    assert len({source.fingerprint() for source in sources}) == 1
    twin = next(
        other for other in LAYOUTS if other.binary != layout.binary and ("100" in other.archive) == ("100" in layout.archive)
    )
    write(tmp_path / "c" / twin.folder, cifar_files(twin, np.random.default_rng(0)))
    assert find(tmp_path / "c").fingerprint() == sources[0].fingerprint()

    source = sources[0]
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (3, 3072), np.uint8)[1]
    label = rng.integers(0, len(source.classes), 3)[1]
    name, found, pixels = source.read("train", 1)
    assert (name.split("/")[-1], found) == ("00001", label)
    np.testing.assert_array_equal(pixels, first.reshape(3, 32, 32).transpose(1, 2, 0))
    dataset = prepare(source, tmp_path / "out")
    assert (dataset.manifest.size, dataset.manifest.encoding) == (32, "raw")
    assert dataset.manifest.splits == source.images


def test_a_pickle_that_calls_functions_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, ("exit 1",)

    layout = LAYOUTS[1]
    files = cifar_files(layout, np.random.default_rng(0)) | {"data_batch_2": pickle.dumps({b"data": Evil()}, 2)}
    with pytest.raises(UserError, match=r"wants to call posix\.system"):
        find(write(tmp_path / layout.folder, files))


@pytest.mark.parametrize("layout", LAYOUTS[:2], ids=["binary", "python"])
def test_damaged_cifar_is_said(tmp_path, layout):
    files = cifar_files(layout, np.random.default_rng(0))
    whole = packed({f"{layout.folder}/{name}": data for name, data in files.items()})
    third = layout.splits["train"][2]
    cases = {
        "fetch it again": {layout.archive: whole[: len(whole) // 2]},
        f"lacks {third}": {f"{layout.folder}/{name}": data for name, data in files.items() if name != third},
        "is damaged": {f"{layout.folder}/{name}": data[:-7] if name == third else data for name, data in files.items()},
    }
    for number, (message, case) in enumerate(cases.items()):
        with pytest.raises(UserError, match=message):
            find(write(tmp_path / str(number), case))
    no_gzip = gzip.compress(b"not a tar") if layout.binary else b"<html>"
    with pytest.raises(UserError, match="fetch it again"):
        find(write(tmp_path / "no", {layout.archive: no_gzip}))


# TFDS: a stand-in for the library, and the library itself where there is one.


class FakeBuilder:
    data_path = "/data/tiny/1.0.0"
    prepared = True
    format = "array_record"

    def __init__(self):
        features = {"image": SimpleNamespace(shape=(None, None, 3)), "label": SimpleNamespace(names=WNIDS)}
        self.splits = {
            "train": [{"image": picture(i), "label": i % 3, "file_name": f"{i}.JPEG"} for i in range(6)],
            "validation": [{"image": picture(9), "label": 1, "id": b"nine"}],
            "test": [{"image": picture(9), "label": -1}],
        }
        info = {split: SimpleNamespace(shard_lengths=[len(found)], num_bytes=1) for split, found in self.splits.items()}
        self.info = SimpleNamespace(
            file_format=SimpleNamespace(value=self.format), features=features, splits=info, full_name="tiny/1.0.0"
        )

    def is_prepared(self):
        return self.prepared

    def as_data_source(self, split, decoders):
        assert decoders == {"image": "undecoded"}
        return self.splits[split]


@pytest.fixture
def library(monkeypatch):
    module = ModuleType("tensorflow_datasets")
    builder = FakeBuilder()

    def make(name, data_dir):
        if name != "tiny":
            raise ValueError(f"Dataset {name} not found.\nAvailable: …")
        return builder

    vars(module).update(builder=make, decode=SimpleNamespace(SkipDecoding=lambda: "undecoded"))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    return builder


def test_tfds_data_are_read_in_place(library, tmp_path):
    source = find("tfds:tiny")
    assert source.classes == WNIDS
    assert source.images == {"train": 6, "validation": 1}
    assert source.notes == ("1 test pictures, which have no labels",)
    assert (source.size, source.raw) == (256, False)
    assert source.read("validation", 0) == ("validation/nine", 1, picture(9))
    dataset = prepare_path("tfds:tiny", tmp_path / "out", PrepareOptions(size=8))
    assert dataset.manifest.splits == {"train": 6, "validation": 1}
    assert dataset.manifest.source == "tfds:tiny/1.0.0"


def test_tfds_that_cannot_be_used_says_what_to_do(library, monkeypatch):
    with pytest.raises(UserError, match=r"has no nonesuch \(Dataset nonesuch not found\.\)$"):
        find("tfds:nonesuch")
    library.info.file_format.value = "tfrecord"
    with pytest.raises(UserError, match=r"no random access; .* --file_format=array_record --overwrite"):
        find("tfds:tiny")
    library.prepared = False
    with pytest.raises(
        UserError, match=r"not prepared in /data/tiny/1\.0\.0; .* tfds build tiny --data_dir=/d --file_format=array"
    ):
        find_source("tfds:tiny", ValidationSplit(), "/d")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"pip install 'alexnet-jax\[tfds\]'"):
        find("tfds:tiny")


@pytest.mark.skipif(
    "ALEXNET_JAX_TFDS" not in os.environ, reason="ALEXNET_JAX_TFDS=NAME:DIRECTORY names data that TFDS has prepared"
)
def test_tfds_itself(tmp_path):
    name, data_dir = os.environ["ALEXNET_JAX_TFDS"].split(":", 1)
    source = find_source(f"tfds:{name}", ValidationSplit(), data_dir)
    record = source.read("train", 0)
    assert isinstance(record.data, bytes)
    assert 0 <= record.label < len(source.classes)


def test_names_and_labels_reach_the_records(tmp_path):
    from array_record.python.array_record_module import ArrayRecordReader

    dataset = prepare_path(
        write(tmp_path / "source", tars() | LISTS["classes"]), tmp_path / "out", PrepareOptions(size=16, raw=True)
    )
    assert dataset.manifest.counts == {"train": [2, 2, 2], "validation": [1, 1, 2]}
    reader = ArrayRecordReader(dataset.shards("validation")[0])
    records = [unpack(data) for data in reader.read_all()]
    reader.close()
    assert [record.label for record in records] == [0, 1, 2, 2]
    assert [record.name for record in records] == [f"ILSVRC2012_img_val/ILSVRC2012_val_{i:08}.JPEG" for i in (3, 4, 1, 2)]
    assert [record.image[0] for record in records] == [103, 104, 101, 102], "raw: the first red"
