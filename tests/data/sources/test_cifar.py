"""Tests of CIFAR as a source, with files of three random images each."""

import gzip
import os
import pickle

import numpy as np
import pytest

from alexnet_jax.data.prepare.convert import prepare
from alexnet_jax.data.sources.cifar import LAYOUTS
from alexnet_jax.errors import UserError
from tests.data.sources.archives import (
    make_tar_gz,
    open_source,
    write_files,
)


def cifar_files(layout, rng):
    classes = ["class0", "class1", "class2"]
    key = layout.label_key.removesuffix("s").encode() + b"_names"
    files = {layout.class_names: "\n".join(classes).encode() + b"\n\n" if layout.binary else pickle.dumps({key: classes}, 2)}
    for file in (file for names in layout.splits.values() for file in names):
        images = rng.integers(0, 256, (3, 3072), np.uint8)
        labels = rng.permutation(3)
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
    expected_label = rng.permutation(3)[1]
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
