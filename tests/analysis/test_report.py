"""The figures and the page of a run."""

import json
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser

import jax
import numpy as np
import pytest
from PIL import Image

import alexnet_jax.analysis.report
from alexnet_jax.analysis.examples import ExampleOptions, Examples, Picture, Prediction, Retrieved, find_examples
from alexnet_jax.analysis.figure4 import draw_predictions, draw_retrieved
from alexnet_jax.analysis.html_page import Content, html_page
from alexnet_jax.analysis.indexing import build_index
from alexnet_jax.analysis.kernel_colors import color_statistics
from alexnet_jax.analysis.report import write_training_report
from alexnet_jax.cli import main as cli
from alexnet_jax.data.find import find_training_dataset
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.weights.trained_model import load
from tests.analysis.test_exact_search import brute_force
from tests.conftest import TINY

FILES = {"curves.png", "kernels.png", "colors.png", "colors.json", "predictions.png", "retrieval.png", "report.html"}
HOSTILE = "<b>$x_&'\"</b>"


class Parsed(HTMLParser):
    """A page as a browser sees it: which elements there are, what they load, and the text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.loaded, self.text = set(), [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def trained(trained_run):
    return load(trained_run)


@pytest.fixture(scope="module")
def dataset(trained, trained_run):
    return find_training_dataset(None, trained.config["data"]["path"], trained_run)


def test_figures_makes_every_file_and_leaves_the_run_alone(trained_run, tmp_path, monkeypatch, capsys):
    before = {file.name: file.stat().st_mtime_ns for file in trained_run.iterdir()}
    arguments = ["figures", str(trained_run), "--to", str(tmp_path / "to"), "--images", "3", "--queries", "2"]
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", *arguments])
    cli.main()
    said = capsys.readouterr().out.splitlines()
    assert [re.sub(r"\d+%", "…", line) for line in said[:-1]] == [f"tower {n}: 4 kernels, … color in the mean" for n in (0, 1)]
    assert said[-1] == str(tmp_path / "to" / "report.html")
    assert {file.name for file in (tmp_path / "to").iterdir()} == FILES
    assert {file.name: file.stat().st_mtime_ns for file in trained_run.iterdir()} == before
    for name in ("curves.png", "kernels.png", "colors.png", "predictions.png", "retrieval.png"):
        with Image.open(tmp_path / "to" / name) as picture:
            assert picture.width > 50


def test_the_page_that_training_leaves_tells_of_it_and_needs_nothing_else(trained_run):
    parsed = Parsed((trained_run / "report.html").read_text())
    result = json.loads((trained_run / "result.json").read_text())
    for told in (f"{result['top1_error']:.1%}", "top-1 error", "tower 1: 4 kernels", "above", "(all 80 were searched)", "jaxlib"):
        assert told in parsed.text
    assert all(source.startswith("data:image/") for source in parsed.loaded)
    assert len(parsed.loaded) == 2 + 8 + 5 * 7
    assert not parsed.elements & {"script", "link", "iframe"}
    assert "http" not in (trained_run / "report.html").read_text()


def test_predictions_are_the_most_probable_classes(trained, dataset):
    examples = find_examples(trained, dataset, "validation", ExampleOptions(images=6, queries=3, seed=1))
    assert [prediction.picture for prediction in examples.predictions[:3]] == [of.picture for of in examples.retrieved]
    probabilities = Predictor(trained, batch_size=8)(np.stack([of.picture.pixels for of in examples.predictions]))
    for prediction, row in zip(examples.predictions, probabilities, strict=True):
        assert [label for label, _ in prediction.guesses] == [trained.classes[label] for label in np.argsort(-row)]
        assert sum(probability for _, probability in prediction.guesses) == pytest.approx(1)
    assert np.mean([of.guesses[0][0] == of.picture.label for of in examples.predictions]) > 0.5


@pytest.mark.parametrize("searched", [80, 10])
def test_what_is_retrieved_is_nearest_of_what_is_searched(trained, dataset, searched, tmp_path):
    examples = find_examples(trained, dataset, "validation", ExampleOptions(queries=3, searched=searched))
    assert (examples.searched, examples.training) == (searched, 80)
    of = Predictor(trained, layer="fc6/relu", batch_size=16)
    rows = of.split(dataset, "train").rows
    queries = of(np.stack([retrieved.picture.pixels for retrieved in examples.retrieved]))
    _, distances = brute_force(queries, rows, 6)
    found = np.array([[distance for _, distance in retrieved.nearest] for retrieved in examples.retrieved])
    if searched == 80:
        np.testing.assert_allclose(found, distances, rtol=1e-5)
        index = build_index(trained, dataset, "train", tmp_path / "index")
        assert names(find_examples(trained, dataset, "validation", ExampleOptions(queries=3), index)) == names(examples)
    else:
        assert (found >= distances - 1e-5).all()
        assert (found > distances + 1e-5).any()
    for retrieved, near in zip(examples.retrieved, found, strict=True):
        again = of(np.stack([picture.pixels for picture, _ in retrieved.nearest]))
        query = of(retrieved.picture.pixels[None])
        np.testing.assert_allclose(np.linalg.norm(again - query, axis=1), near, rtol=1e-4)


def names(examples):
    return [[picture.name for picture, _ in retrieved.nearest] for retrieved in examples.retrieved]


def test_an_index_of_another_network_is_refused(trained, dataset, tmp_path):
    index = build_index(trained, dataset, "train", tmp_path / "index")
    other = replace(trained, mean_image=trained.mean_image + 1)
    with pytest.raises(UserError, match="was made by other parameters"):
        find_examples(other, dataset, "validation", ExampleOptions(), index)


def test_choices_of_nothing_are_refused():
    with pytest.raises(UserError, match="one or more --images"):
        ExampleOptions(images=0)


def hostile_examples(rng):
    picture = Picture(rng.integers(0, 256, (32, 32, 3), np.uint8), HOSTILE, f"{HOSTILE}/字.jpg")
    return Examples(
        [Prediction(picture, [(HOSTILE, 0.9), ("字 $_", 0.1)])], [Retrieved(picture, [(picture, 0.5)])], "validation", 1, 2
    )


def content(examples, classes):
    kernels = np.random.default_rng(0).normal(size=(2, 5, 5, 3, 4))
    config = {"network": TINY.to_json(), "epochs": 3, "data": {"path": HOSTILE, "classes": classes}}
    return Content(HOSTILE, config, None, [], b"", b"", color_statistics(kernels), examples, {"jax": jax.__version__})


def test_names_are_text_whatever_they_are(rng, tmp_path):
    parsed = Parsed(html_page(content(hostile_examples(rng), [HOSTILE, "字"])))
    assert "b" not in parsed.elements - Parsed(html_page(content("None", []))).elements
    assert parsed.text.count(HOSTILE) == 8  # title, heading, caption, guess, twice in retrieval, path and class
    assert "(1 of 2, drawn at random, were searched)" in parsed.text
    examples = hostile_examples(rng)
    draw_predictions(examples.predictions, tmp_path / "predictions.png")
    draw_retrieved(examples.retrieved, tmp_path / "retrieval.png")


def test_of_a_run_that_is_not_finished_there_is_a_page(rng):
    line = {"step": 5, "epoch": 1, "rate": 0.01, "loss": 1.0, "top1_error": 0.25, "top5_error": 0.125}
    parsed = Parsed(html_page(replace(content("Why not: <i>", []), epochs=[line])))
    assert all(told in parsed.text for told in ("25.0%", "epochs so far", "Why not: <i>"))


def test_several_processes_leave_out_what_needs_all_devices(trained_run, tmp_path, monkeypatch):
    """A predictor in one of them would wait forever for the devices of the others."""
    run = shutil.copytree(trained_run, tmp_path / "run")
    (run / "report.html").unlink()
    model = load(run)
    monkeypatch.setattr(alexnet_jax.analysis.report, "load", lambda _: model)
    monkeypatch.setattr(alexnet_jax.analysis.report, "find_examples", None)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    write_training_report(run)
    page = (run / "report.html").read_text()
    assert f"Left out because several processes trained together. To add them, run: alexnet-jax figures {run}" in page
