"""Tests of the image sources: folders, ImageNet and CIFAR archives, and data sets prepared by TFDS."""

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


def png_image(number):
    """Return a PNG whose pixels encode the number."""
    file = io.BytesIO()
    Image.new("RGB", (20, 16), (number % 256, number // 256, 7)).save(file, "PNG")
    return file.getvalue()


def make_tar(files, format=tarfile.DEFAULT_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def make_tar_gz(files):
    return gzip.compress(make_tar(files))


def write_files(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return root


def open_source(path, **kwargs):
    return find_source(str(path), ValidationSplit(**kwargs))


def read_all(source):
    """Return the class name, file name and bytes of every image, by split."""
    return {
        split: [
            (source.classes[label], name.split("/")[-1], data)
            for name, label, data in (source.read(split, index) for index in range(num_images))
        ]
        for split, num_images in source.num_images.items()
    }


TRAIN = {wnid: {f"{wnid}_{i}.JPEG": png_image(10 * k + i) for i in (2, 10)} for k, wnid in enumerate(WNIDS)}
# Labels by image number, in the order of the archives, which differs from the order of the numbers.
VALIDATION = {4: WNIDS[1], 1: WNIDS[2], 3: WNIDS[0], 2: WNIDS[2]}
EXPECTED = {
    "train": sorted((wnid, name, data) for wnid, files in TRAIN.items() for name, data in files.items()),
    "validation": sorted((wnid, f"ILSVRC2012_val_{i:08}.JPEG", png_image(100 + i)) for i, wnid in VALIDATION.items()),
}


def validation_files(folder=""):
    return {f"{folder}ILSVRC2012_val_{i:08}.JPEG": png_image(100 + i) for i in VALIDATION}


def devkit(year=2012, *, split="validation"):
    """Return the files of a development kit in which classes are not sorted by name and one synset is a group."""
    order = [WNIDS[2], WNIDS[0], WNIDS[1]]
    synsets = np.empty((4, 1), [(f"ILSVRC{year}_ID", "O"), ("WNID", "O"), ("num_children", "O")])
    for i, wnid in enumerate([*order, "n00000001"]):
        synsets[i, 0] = (np.array([[i + 1]], np.uint16), wnid, np.array([[3 if i == 3 else 0]], np.uint8))
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets}, do_compression=True)
    truth = "".join(f"{order.index(VALIDATION[i]) + 1}\n" for i in sorted(VALIDATION))
    return {"data/meta.mat": meta.getvalue(), f"data/ILSVRC{year}_{split}_ground_truth.txt": truth.encode()}


def ilsvrc_archives():
    """Return small versions of the archives of ILSVRC-2012."""
    return {
        "ILSVRC2012_img_train.tar": make_tar({f"{wnid}.tar": make_tar(files) for wnid, files in TRAIN.items()}),
        "ILSVRC2012_img_val.tar": make_tar(validation_files()),
    }


LABEL_FILES = {
    "classes": {"imagenet_2012_validation_synset_labels.txt": "".join(f"{VALIDATION[i]}\n" for i in sorted(VALIDATION))},
    "caffe": {"val.txt": "".join(f"ILSVRC2012_val_{i:08}.JPEG {WNIDS.index(wnid)}\n" for i, wnid in VALIDATION.items())},
    "kaggle": {
        "LOC_val_solution.csv": "ImageId,PredictionString\n"
        + "".join(f"ILSVRC2012_val_{i:08},{wnid} 1 2 3 4 {wnid} 5 6 7 8 \n" for i, wnid in VALIDATION.items())
    },
    "development kit": {
        "ILSVRC2012_devkit_t12.tar.gz": make_tar_gz({f"ILSVRC2012_devkit_t12/{name}": data for name, data in devkit().items()})
    },
    "unpacked development kit": {f"ILSVRC2012_devkit_t12/{name}": data for name, data in devkit().items()},
}


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


EXTRACTED = {f"train/{wnid}/{name}": data for wnid, files in TRAIN.items() for name, data in files.items()}


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
    assert {split: sorted(images) for split, images in read_all(open_source(write_files(tmp_path, files))).items()} == EXPECTED


@pytest.mark.parametrize("labels", [{}, {"test.txt": "ILSVRC2012_test_00000001.JPEG 0\n"}], ids=["no label file", "all zero"])
def test_test_images_without_labels_are_excluded(tmp_path, labels):
    files = (
        ilsvrc_archives()
        | LABEL_FILES["classes"]
        | {"ILSVRC2012_img_test_v10102019.tar": make_tar({"test/ILSVRC2012_test_00000001.JPEG": png_image(1)})}
    )
    source = open_source(write_files(tmp_path, files | labels))
    assert list(source.num_images) == ["train", "validation"]
    assert source.notes == ("1 test images without labels",)


def test_upscaling_is_reported(tmp_path, capsys):
    prepare_path(write_files(tmp_path / "source", EXTRACTED), tmp_path / "out")
    assert "pass --size 16 to keep their resolution" in capsys.readouterr().err


def test_excluded_images_are_reported(tmp_path, capsys):
    files = EXTRACTED | {"train/loose.png": png_image(1), "patch_images.tar": make_tar({"train/n01440764_2.JPEG": png_image(1)})}
    dataset = prepare_path(write_files(tmp_path / "source", files), tmp_path / "out", PrepareOptions(size=8))
    assert dataset.manifest.left_out == ["1 images outside train", "1 train images outside class folders"]
    assert "left out 1 images outside train" in capsys.readouterr().err


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


def test_links_in_archives_are_ignored(tmp_path, capsys):
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as tar:
        for k, c in enumerate("ab"):
            member = tarfile.TarInfo(f"{c}/1.png")
            member.size = len(png_image(k))
            tar.addfile(member, io.BytesIO(png_image(k)))
        link = tarfile.TarInfo("a/2.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert open_source(path).num_images["train"] == 2
    assert "ignored 1 links" in capsys.readouterr().err


def truncate(data, fraction):
    return data[: int(len(data) * fraction)]


def flip_bit(data, byte):
    return data[:byte] + bytes([data[byte] ^ 0x40]) + data[byte + 1 :]


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
    "one class": ({"x.tar": make_tar({f"{i}.png": b"" for i in range(9)})}, r"one class only \(x\)"),
    "two folders of a split": ({"val/a/1.png": b"", "valid/a/1.png": b"", "train/a/1.png": b""}, "has both val and valid"),
    "class without training images": (
        {"train/a/1.png": b"", "train/b/1.png": b"", "val/c/1.png": b""},
        "classes without training images: c",
    ),
    "no images": ({"readme.txt": b""}, "has no training images; expected train/<class>"),
    "unsupported archive": ({"photos.zip": b"PK"}, "has no training images"),
}


@pytest.mark.parametrize(("files", "message"), INVALID_SOURCES.values(), ids=INVALID_SOURCES)
def test_invalid_source_errors(tmp_path, files, message):
    with pytest.raises(UserError, match=message) as error:
        open_source(write_files(tmp_path / "source", files))
    assert "\n" not in str(error.value)


def test_duplicate_name_in_archive(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("a/1.png", "b/1.png", "a/1.png"):
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(UserError, match=r"both contain a/1\.png"):
        open_source(tmp_path / "x.tar")


def test_unsupported_paths(tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist: pass a folder with train/<class>.*cifar-10-python"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"unpack it first; otherwise pass a folder with train/<class>"):
        open_source(tmp_path / "photos.zip")
    (tmp_path / "loop" / "a").mkdir(parents=True)
    (tmp_path / "loop" / "a" / "again").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match="is a link to one of its parent folders"):
        open_source(tmp_path / "loop")


def test_truncated_or_deleted_archive(tmp_path):
    source = open_source(write_files(tmp_path / "s", ilsvrc_archives() | LABEL_FILES["classes"]))
    path = tmp_path / "s" / "ILSVRC2012_img_train.tar"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="is shorter than when it was listed"):
        read_all(source)
    path.unlink()
    with pytest.raises(UserError, match=r"cannot read .*No such file"):
        read_all(source)


# CIFAR, with files of 3 random images each.


def cifar_files(layout, rng):
    classes = [f"class{i}" for i in range(100 if "100" in layout.archive else 10)]
    key = layout.label_key.removesuffix("s").encode() + b"_names"
    files = {layout.class_names: "\n".join(classes).encode() + b"\n\n" if layout.binary else pickle.dumps({key: classes}, 2)}
    for file in (file for names in layout.splits.values() for file in names):
        images = rng.integers(0, 256, (3, 3072), np.uint8)
        labels = rng.integers(0, len(classes), 3)
        if layout.binary:
            rows = [
                bytes([9] * (layout.label_bytes - 1) + [label]) + image.tobytes()
                for image, label in zip(images, labels, strict=True)
            ]
            files[file] = b"".join(rows)
        else:
            content = pickle.dumps({b"data": images, layout.label_key.encode(): labels.tolist(), b"batch_label": b"x"}, 2)
            files[file] = content.replace(b"numpy._core.", b"numpy.core.")  # module name of NumPy 1
    return files


@pytest.mark.parametrize("layout", LAYOUTS, ids=[layout.archive for layout in LAYOUTS])
def test_cifar(tmp_path, layout):
    """Check the paths of the archive, of its folder and of their parent folder, and that binary and python versions are equal."""
    files = cifar_files(layout, np.random.default_rng(0))
    write_files(tmp_path / "a", {layout.archive: make_tar_gz({f"{layout.folder}/{name}": data for name, data in files.items()})})
    write_files(tmp_path / "b" / layout.folder, files)
    sources = [
        open_source(path)
        for path in (tmp_path / "a", tmp_path / "a" / layout.archive, tmp_path / "b", tmp_path / "b" / layout.folder)
    ]
    assert len({source.fingerprint() for source in sources}) == 1
    other_version = next(
        other for other in LAYOUTS if other.binary != layout.binary and ("100" in other.archive) == ("100" in layout.archive)
    )
    write_files(tmp_path / "c" / other_version.folder, cifar_files(other_version, np.random.default_rng(0)))
    assert open_source(tmp_path / "c").fingerprint() == sources[0].fingerprint()

    source = sources[0]
    rng = np.random.default_rng(0)
    expected_pixels = rng.integers(0, 256, (3, 3072), np.uint8)[1]
    expected_label = rng.integers(0, len(source.classes), 3)[1]
    name, label, pixels = source.read("train", 1)
    assert (name.split("/")[-1], label) == ("00001", expected_label)
    np.testing.assert_array_equal(pixels, expected_pixels.reshape(3, 32, 32).transpose(1, 2, 0))
    dataset = prepare(source, tmp_path / "out")
    assert (dataset.manifest.size, dataset.manifest.encoding) == (32, "raw")
    assert dataset.manifest.splits == source.num_images


def test_pickle_with_function_calls_is_rejected(tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.system, ("exit 1",)

    layout = LAYOUTS[1]
    files = cifar_files(layout, np.random.default_rng(0)) | {"data_batch_2": pickle.dumps({b"data": Malicious()}, 2)}
    with pytest.raises(UserError, match=r"calls posix\.system, which is not allowed"):
        open_source(write_files(tmp_path / layout.folder, files))


@pytest.mark.parametrize("layout", LAYOUTS[:2], ids=["binary", "python"])
def test_damaged_cifar(tmp_path, layout):
    files = cifar_files(layout, np.random.default_rng(0))
    archive = make_tar_gz({f"{layout.folder}/{name}": data for name, data in files.items()})
    train_file = layout.splits["train"][2]
    cases = {
        "download it again": {layout.archive: archive[: len(archive) // 2]},
        f"has no file {train_file}": {f"{layout.folder}/{name}": data for name, data in files.items() if name != train_file},
        "is damaged": {f"{layout.folder}/{name}": data[:-7] if name == train_file else data for name, data in files.items()},
    }
    for number, (message, case) in enumerate(cases.items()):
        with pytest.raises(UserError, match=message):
            open_source(write_files(tmp_path / str(number), case))
    not_tar_gz = gzip.compress(b"not a tar") if layout.binary else b"<html>"
    with pytest.raises(UserError, match="download it again"):
        open_source(write_files(tmp_path / "no", {layout.archive: not_tar_gz}))


# TFDS, with a fake of the library, and with the library itself if ALEXNET_JAX_TFDS is set.


class FakeBuilder:
    data_path = "/data/tiny/1.0.0"
    prepared = True
    format = "array_record"

    def __init__(self):
        features = {"image": SimpleNamespace(shape=(None, None, 3)), "label": SimpleNamespace(names=WNIDS)}
        self.splits = {
            "train": [{"image": png_image(i), "label": i % 3, "file_name": f"{i}.JPEG"} for i in range(6)],
            "validation": [{"image": png_image(9), "label": 1, "id": b"nine"}],
            "test": [{"image": png_image(9), "label": -1}],
        }
        info = {split: SimpleNamespace(shard_lengths=[len(records)], num_bytes=1) for split, records in self.splits.items()}
        self.info = SimpleNamespace(
            file_format=SimpleNamespace(value=self.format), features=features, splits=info, full_name="tiny/1.0.0"
        )

    def is_prepared(self):
        return self.prepared

    def as_data_source(self, split, decoders):
        assert decoders == {"image": "undecoded"}
        return self.splits[split]


@pytest.fixture
def tfds_builder(monkeypatch):
    module = ModuleType("tensorflow_datasets")
    builder = FakeBuilder()

    def create_builder(name, data_dir):
        if name != "tiny":
            raise ValueError(f"Dataset {name} not found.\nAvailable: …")
        return builder

    vars(module).update(builder=create_builder, decode=SimpleNamespace(SkipDecoding=lambda: "undecoded"))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    return builder


def test_tfds_source(tfds_builder, tmp_path):
    source = open_source("tfds:tiny")
    assert source.classes == WNIDS
    assert source.num_images == {"train": 6, "validation": 1}
    assert source.notes == ("1 test images without labels",)
    assert (source.size, source.raw) == (256, False)
    assert source.read("validation", 0) == ("validation/nine", 1, png_image(9))
    dataset = prepare_path("tfds:tiny", tmp_path / "out", PrepareOptions(size=8))
    assert dataset.manifest.splits == {"train": 6, "validation": 1}
    assert dataset.manifest.source == "tfds:tiny/1.0.0"


def test_tfds_errors(tfds_builder, monkeypatch):
    with pytest.raises(UserError, match=r"has no data set nonesuch \(Dataset nonesuch not found\.\): check the name$"):
        open_source("tfds:nonesuch")
    tfds_builder.info.file_format.value = "tfrecord"
    with pytest.raises(UserError, match=r"not in ArrayRecord format: run .* --file_format=array_record --overwrite"):
        open_source("tfds:tiny")
    tfds_builder.prepared = False
    with pytest.raises(
        UserError, match=r"not prepared in /data/tiny/1\.0\.0: run tfds build tiny --data_dir=/d --file_format=array"
    ):
        find_source("tfds:tiny", ValidationSplit(), "/d")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"pip install 'alexnet-jax\[tfds\]'"):
        open_source("tfds:tiny")


@pytest.mark.skipif("ALEXNET_JAX_TFDS" not in os.environ, reason="needs a data set of TFDS: set ALEXNET_JAX_TFDS=NAME:DIRECTORY")
def test_tfds_with_the_real_library(tmp_path):
    name, data_dir = os.environ["ALEXNET_JAX_TFDS"].split(":", 1)
    source = find_source(f"tfds:{name}", ValidationSplit(), data_dir)
    record = source.read("train", 0)
    assert isinstance(record.data, bytes)
    assert 0 <= record.label < len(source.classes)


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
