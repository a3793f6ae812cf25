"""Tests of the names of classes to print, and of the built-in list of ILSVRC's classes."""

import json

import numpy as np
import pytest

from alexnet_jax.data.class_names import ilsvrc_classes, ilsvrc_names, ilsvrc_numbers, printed_names
from alexnet_jax.data.images import encode_jpeg
from alexnet_jax.data.records import Record, open_dataset
from alexnet_jax.training.run_config import RunConfig
from alexnet_jax.weights.trained_model import initialize
from tests.data.sources.archives import (
    EXTRACTED,
    LABEL_FILES,
    WNIDS,
    devkit,
    make_tar_gz,
    open_source,
    validation_files,
    write_files,
)
from tests.dataset_writer import create_dataset
from tests.tiny import TINY


def test_ilsvrc_names():
    names = ilsvrc_names()
    assert len(names) == len(set(names.values())) == 1000
    assert names["n02391049"] == "zebra"
    assert (names["n03710637"], names["n03710721"]) == ("maillot", "maillot, tank suit")
    # The first validation labels of the development kit, and the WordNet ids of the same images, from another file.
    truth = [490, 361, 171, 822, 297, 482, 13, 704, 599, 164]
    wordnet_ids = ["n01751748", "n09193705", "n02105855", "n04263257", "n03125729", "n01735189", "n02346627", "n02776631"]
    wordnet_ids += ["n03794056", "n02328150"]
    assert ilsvrc_numbers(wordnet_ids) == truth
    assert sorted(ilsvrc_numbers(list(names)) or []) == list(range(1, 1001))


def test_lists_of_ilsvrc_names_are_recognized():
    names = [f"{ilsvrc_names()[key]}, another name" for key in sorted(ilsvrc_names())]
    names[names.index("crane, another name")] = "crane2"  # as in Hugging Face's copy, whose names must differ
    assert ilsvrc_classes(names) == sorted(ilsvrc_names())
    assert ilsvrc_classes(names[::-1]) is None
    assert ilsvrc_classes(names[:-1]) is None


def test_printed_names_differ():
    printed = printed_names(sorted(ilsvrc_names()))
    assert len(set(printed)) == 1000
    assert printed_names(WNIDS) == ["tench", "goldfish", "crane bird"]


KIT = {
    f"ILSVRC2012_devkit_t12/{name}": data
    for name, data in devkit(words=["crane, a bird", "tench, Tinca tinca", "goldfish, Carassius auratus", "group"]).items()
}
NAME_FILES = {
    "Kaggle": {"LOC_synset_mapping.txt": "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius\nn02012849 crane\n"},
    "all synsets": {"words.txt": "n00001740\tentity\nn01440764\ttench, Tinca\nn01443537\tgoldfish\nn02012849\tcrane\n"},
    "development kit": {"ILSVRC2012_devkit_t12.tar.gz": make_tar_gz(KIT)},
    "unpacked development kit": KIT,
}


@pytest.mark.parametrize("files", NAME_FILES.values(), ids=NAME_FILES)
def test_names_beside_folders(tmp_path, files):
    labels = {} if any("devkit" in name for name in files) else LABEL_FILES["classes"]
    source = open_source(write_files(tmp_path, EXTRACTED | validation_files("val/") | labels | files))
    assert (source.classes, source.display_names) == (WNIDS, ["tench", "goldfish", "crane"])
    assert source.num_left_out == 0


def test_names_of_other_classes_are_left_out(tmp_path):
    files = {f"{name}/1.png": EXTRACTED[next(iter(EXTRACTED))] for name in ("cat", "dog")}
    source = open_source(write_files(tmp_path, files | {"words.txt": "n00001740\tentity\n"}))
    assert (source.display_names, source.left_out) == ([], {"words.txt": "not an image"})


def test_data_sets_and_runs_of_earlier_versions(tmp_path):
    with create_dataset(tmp_path / "photos", WNIDS, size=16) as writer:
        pixels = np.zeros((16, 16, 3), np.uint8)
        writer.write("train", Record(encode_jpeg(pixels), 0, "0.jpg"), pixels)
    manifest = json.loads((tmp_path / "photos" / "manifest.json").read_text())
    assert (manifest.pop("display_names"), manifest.pop("unlabeled")) == ([], [])
    (tmp_path / "photos" / "manifest.json").write_text(json.dumps(manifest))
    dataset = open_dataset(tmp_path / "photos")
    assert dataset.manifest.printed_classes == ["tench", "goldfish", "crane bird"]
    config = initialize(TINY, classes=WNIDS, image_size=32).config.to_json()
    assert config["data"].pop("display_names") == []
    assert RunConfig.from_json(config, tmp_path).data.printed_classes == ["tench", "goldfish", "crane bird"]
