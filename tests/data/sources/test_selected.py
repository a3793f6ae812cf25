"""Tests of training on some of the classes of a data set."""

import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import alexnet_jax.training.train
from alexnet_jax.data.find import find_dataset, select_classes
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.prepare.convert import PrepareOptions, prepare_path
from alexnet_jax.data.records import Dataset
from alexnet_jax.data.sources.selected import selected_names
from alexnet_jax.errors import UserError
from alexnet_jax.training.config import Options
from alexnet_jax.training.result import TrainResult
from alexnet_jax.training.train import train
from alexnet_jax.weights.trained_model import load_run_config
from tests.conftest import TINY_CONFIG

BRIGHTNESS = {"bird": 40, "cat": 90, "dog": 140, "owl": 200}


@pytest.fixture(scope="module", params=[False, True], ids=["jpeg", "raw"])
def animals(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("animals")
    for split, num_images in (("train", 5), ("validation", 2)):
        for name, brightness in BRIGHTNESS.items():
            (folder / split / name).mkdir(parents=True)
            for i in range(num_images):
                pixels = np.full((40, 40, 3), brightness + i, np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return prepare_path(folder, folder.parent / f"prepared-{request.param}", PrepareOptions(size=32, raw=request.param))


def records(dataset: Dataset, split: str) -> dict[str, tuple[str, bytes]]:
    """Return class and encoded image of each record of a split, by name, in order."""
    images = DecodedImages(dataset, split, dataset.manifest.size)
    read = [images.record(index) for index in range(len(images))]
    return {record.name: (dataset.manifest.classes[record.label], record.image) for record in read}


def test_selected_classes_have_the_same_images_and_a_mean_of_their_own(animals, tmp_path):
    selected = select_classes(animals, ["owl", "cat"], tmp_path)
    assert selected.manifest.classes == ["cat", "owl"], "in the order of the data set"
    assert selected.manifest.splits == {"train": 10, "validation": 4}
    for split in ("train", "validation"):
        expected = {name: record for name, record in records(animals, split).items() if record[0] in ("cat", "owl")}
        assert list(records(selected, split).items()) == list(expected.items()), "also the bytes: nothing is encoded again"
    assert selected.mean_image.mean() == pytest.approx((90 + 200) / 2 + 2, abs=1)
    assert select_classes(animals, ["cat", "owl", "cat"], tmp_path).path == selected.path
    assert select_classes(animals, list(BRIGHTNESS), tmp_path) == animals
    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["cat", "dok"], "has no class 'dok'; the nearest are 'dog', "),
        (["cat"], "--classes needs two or more different classes"),
        (["cat", "cat"], "--classes needs two or more different classes"),
    ],
)
def test_invalid_classes_are_errors(animals, tmp_path, classes, message):
    with pytest.raises(UserError, match=message):
        select_classes(animals, classes, tmp_path)
    assert not os.listdir(tmp_path)


def test_nearest_of_many_classes_are_named(animals):
    names = [f"class {number:02}" for number in range(20)]
    many = replace(animals, manifest=replace(animals.manifest, classes=names, counts={}))
    with pytest.raises(UserError, match="has no class 'clas 07'; the nearest are 'class 07', 'class "):
        selected_names(many, ["clas 07", "class 01"])


def test_training_and_what_follows_it_see_the_selected_classes(animals, tmp_path, monkeypatch):
    def run_loop(context, _):
        assert context.network.num_classes == 2
        return TrainResult(context.run.folder, True, 0, None)

    monkeypatch.setattr(alexnet_jax.training.train, "run_loop", run_loop)
    options = Options(data=str(animals.path), data_dir=tmp_path / "data", runs_dir=tmp_path / "runs", devices=2)
    two = train("tiny", TINY_CONFIG, replace(options, classes=("dog", "bird"))).run
    config = load_run_config(two)
    assert config.data.classes == ["bird", "dog"]
    assert find_dataset(config.data.path, "", tmp_path).manifest.classes == ["bird", "dog"], (
        "evaluate and the report use this path"
    )
    others = train("tiny", TINY_CONFIG, replace(options, classes=("dog", "owl"))).run
    assert two != others
