"""Tests of experiments/transfer.py on a small data set."""

import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.prepare.convert import PrepareOptions, prepare_path
from alexnet_jax.errors import UserError

FILE = Path(__file__).parents[2] / "experiments" / "transfer.py"


@pytest.fixture(scope="module")
def transfer():
    spec = importlib.util.spec_from_file_location("transfer", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["transfer"] = module  # dataclasses look up the module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["transfer"]


@pytest.fixture(scope="module")
def four_classes(tmp_path_factory):
    """Prepared data set of four classes of uniform images whose pixels are 50 times the label."""
    root = tmp_path_factory.mktemp("four_classes")
    for split, images in (("train", 40), ("validation", 5), ("test", 4)):
        for number in range(4):
            (root / "photos" / split / f"class{number}").mkdir(parents=True)
            for i in range(images):
                pixels = np.full((128, 128, 3), 50 * number, np.uint8)
                Image.fromarray(pixels).save(root / "photos" / split / f"class{number}" / f"{i}.png")
    return prepare_path(root / "photos", root / "four_classes", PrepareOptions(size=128))


def test_class_subset_contains_the_images_of_its_classes(transfer, four_classes):
    subset = transfer.ClassSubset(four_classes, range(2, 4), 10, seed=1)
    assert subset.classes == ["class2", "class3"]
    assert subset.num_images == {"train": 20, "validation": 10, "test": 8}
    images = [subset.read("train", index) for index in range(20)]
    assert Counter(image.label for image in images) == {0: 10, 1: 10}
    assert len({image.name for image in images}) == 20
    for image in images:
        assert f"class{image.label + 2}" in image.name
        np.testing.assert_allclose(image.data, 100 + 50 * image.label, atol=2)
    other_subset = transfer.ClassSubset(four_classes, range(2, 4), 10, seed=2)
    assert {image.name for image in images} != {other_subset.read("train", index).name for index in range(20)}
    assert subset.fingerprint() != other_subset.fingerprint()
    with pytest.raises(UserError, match="fewer than 41 training images of class2"):
        transfer.ClassSubset(four_classes, range(2, 4), 41)


@pytest.mark.slow
def test_all_methods_are_trained_and_tested(transfer, four_classes, tmp_path, capsys):
    settings = transfer.Transfer(
        data=str(four_classes.path), images=35, seeds=(0,), pretrain_epochs=1, epochs=1, data_dir=tmp_path / "data",
        runs_dir=tmp_path / "runs", to=tmp_path / "transfer.json",
    )  # fmt: skip
    result = transfer.compare(settings)
    assert result["tested_on"] == 18
    assert {method: len(errors) for method, errors in result["test_error"].items()} == dict.fromkeys(transfer.METHODS, 1)
    assert all(0 <= error <= 1 for errors in result["test_error"].values() for error in errors)
    stderr = capsys.readouterr().err
    assert stderr.count("copied conv1, conv2, conv3, conv4, conv5, fc6, fc7 from") == 4
    assert len(re.findall(r"newly initialized: fc8 \([^)]+\); not used: bottleneck", stderr)) == 2
    assert transfer.compare(settings) == result
    assert capsys.readouterr().err.count("is finished") == 7, "no network is trained twice"
