"""`experiments/transfer.py`, in small."""

import importlib.util
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
    sys.modules["transfer"] = module  # where dataclasses look
    spec.loader.exec_module(module)
    yield module
    del sys.modules["transfer"]


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Four classes of gray: the number of a class times 50."""
    root = tmp_path_factory.mktemp("four")
    for split, images in (("train", 40), ("validation", 5), ("test", 4)):
        for number in range(4):
            (root / "photos" / split / f"class{number}").mkdir(parents=True)
            for i in range(images):
                pixels = np.full((128, 128, 3), 50 * number, np.uint8)
                Image.fromarray(pixels).save(root / "photos" / split / f"class{number}" / f"{i}.png")
    return prepare_path(root / "photos", root / "four", PrepareOptions(size=128))


def test_a_part_has_the_pictures_of_its_classes(transfer, four):
    part = transfer.Part(four, range(2, 4), 10, seed=1)
    assert part.classes == ["class2", "class3"]
    assert part.images == {"train": 20, "validation": 10, "test": 8}
    pictures = [part.read("train", index) for index in range(20)]
    assert Counter(picture.label for picture in pictures) == {0: 10, 1: 10}
    assert len({picture.name for picture in pictures}) == 20
    for picture in pictures:
        assert f"class{picture.label + 2}" in picture.name
        np.testing.assert_allclose(picture.data, 100 + 50 * picture.label, atol=2)
    others = transfer.Part(four, range(2, 4), 10, seed=2)
    assert {picture.name for picture in pictures} != {others.read("train", index).name for index in range(20)}
    assert part.fingerprint() != others.fingerprint()
    with pytest.raises(UserError, match="fewer than 41 training images of class2"):
        transfer.Part(four, range(2, 4), 41)


@pytest.mark.slow
def test_every_way_is_trained_and_tested(transfer, four, tmp_path, capsys):
    settings = transfer.Transfer(
        data=str(four.path), images=35, seeds=(0, 1), pretrain_epochs=1, epochs=2, data_dir=tmp_path / "data",
        runs_dir=tmp_path / "runs", to=tmp_path / "transfer.json",
    )  # fmt: skip
    found = transfer.transferred(settings)
    assert found["tested_on"] == 18
    assert {way: len(errors) for way, errors in found["test_error"].items()} == dict.fromkeys(transfer.WAYS, 2)
    assert all(0 <= error <= 1 for errors in found["test_error"].values() for error in errors)
    said = capsys.readouterr().err
    assert said.count("begins with conv1, conv2, conv3, conv4, conv5, fc6, fc7 of") == 8
    assert said.count("new: fc8; left: bottleneck") == 4
    assert transfer.transferred(settings) == found
    assert capsys.readouterr().err.count("is finished") == 14, "nothing is trained twice"
