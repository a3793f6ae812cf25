"""Tests of the figures and the HTML page of a run."""

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
from alexnet_jax.analysis.binary_codes import Autoencoder
from alexnet_jax.analysis.code_search import build_codes
from alexnet_jax.analysis.confusion_matrix import draw_confusion_matrix
from alexnet_jax.analysis.examples import ExampleOptions, Examples, LabeledImage, Prediction, Retrieval, find_examples
from alexnet_jax.analysis.figure4 import draw_predictions, draw_retrievals
from alexnet_jax.analysis.html_page import ReportContent, html_page
from alexnet_jax.analysis.indexing import build_index
from alexnet_jax.analysis.kernel_colors import color_statistics
from alexnet_jax.analysis.report import write_training_report
from alexnet_jax.cli import main as cli
from alexnet_jax.data.find import find_training_dataset
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.training.confusion import Confusions
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.weights.trained_model import load
from tests.analysis.test_exact_search import brute_force
from tests.conftest import TINY

FILES = {"curves.png", "kernels.png", "colors.png", "colors.json", "predictions.png", "retrieval.png", "report.html"}
HOSTILE = "<b>$x_&'\"</b>"


class ParsedPage(HTMLParser):
    """Elements, referenced URLs and text of an HTML page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.urls, self.text = set(), [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        self.urls += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def model(trained_run):
    return load(trained_run)


@pytest.fixture(scope="module")
def dataset(model, trained_run):
    return find_training_dataset(None, model.config.data.path, trained_run)


def test_figures_writes_all_files_and_does_not_change_the_run(trained_run, tmp_path, monkeypatch, capsys):
    before = {file.name: file.stat().st_mtime_ns for file in trained_run.iterdir()}
    arguments = ["figures", str(trained_run), "--to", str(tmp_path / "to"), "--images", "3", "--queries", "2"]
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", *arguments])
    cli.main()
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r"\d+%", "…", line) for line in lines[:-1]] == [f"tower {n}: 4 kernels, mean color fraction …" for n in (0, 1)]
    assert lines[-1] == str(tmp_path / "to" / "report.html")
    assert {file.name for file in (tmp_path / "to").iterdir()} == FILES
    assert {file.name: file.stat().st_mtime_ns for file in trained_run.iterdir()} == before
    for name in ("curves.png", "kernels.png", "colors.png", "predictions.png", "retrieval.png"):
        with Image.open(tmp_path / "to" / name) as image:
            assert image.width > 50


def test_training_writes_a_self_contained_page(trained_run):
    parsed = ParsedPage((trained_run / "report.html").read_text())
    result = json.loads((trained_run / "result.json").read_text())
    for text in (f"{result['top1_error']:.1%}", "top-1 error", "tower 1: 4 kernels", "above", "(searched: all 80)", "jaxlib"):
        assert text in parsed.text
    assert all(url.startswith("data:image/") for url in parsed.urls)
    assert len(parsed.urls) == 2 + 8 + 5 * 7
    assert not parsed.elements & {"script", "link", "iframe"}
    assert "http" not in (trained_run / "report.html").read_text()


def test_predictions_are_the_most_probable_classes(model, dataset):
    examples = find_examples(model, dataset, "validation", ExampleOptions(images=6, queries=3, seed=1))
    assert [prediction.image for prediction in examples.predictions[:3]] == [retrieval.query for retrieval in examples.retrievals]
    pixels = np.stack([prediction.image.pixels for prediction in examples.predictions])
    probabilities = Predictor(model, batch_size=8)(pixels)
    for prediction, row in zip(examples.predictions, probabilities, strict=True):
        assert [label for label, _ in prediction.top_classes] == [model.classes[label] for label in np.argsort(-row)]
        assert sum(probability for _, probability in prediction.top_classes) == pytest.approx(1)
    correct = [prediction.top_classes[0][0] == prediction.image.label for prediction in examples.predictions]
    assert np.mean(correct) > 0.5


@pytest.mark.parametrize("searched", [80, 10])
def test_retrieved_images_are_the_nearest_of_those_searched(model, dataset, searched, tmp_path, monkeypatch):
    examples = find_examples(model, dataset, "validation", ExampleOptions(queries=3, searched=searched))
    assert (examples.num_searched, examples.num_training) == (searched, 80)
    extract_features = Predictor(model, layer="fc6/relu", batch_size=16)
    features = extract_features.predict_split(dataset, "train").outputs
    queries = extract_features(np.stack([retrieval.query.pixels for retrieval in examples.retrievals]))
    _, distances = brute_force(queries, features, 6)
    retrieved = np.array([[distance for _, distance in retrieval.neighbors] for retrieval in examples.retrievals])
    if searched == 80:
        np.testing.assert_allclose(retrieved, distances, rtol=1e-5)
        index = build_index(model, dataset, "train", tmp_path / "index")
        indexed_examples = find_examples(model, dataset, "validation", ExampleOptions(queries=3), index)
        assert neighbor_names(indexed_examples) == neighbor_names(examples)
        build_codes(index, 16, Autoencoder(hidden=8, steps=5, batch_size=8))
        monkeypatch.setattr(index, "search", lambda *_: pytest.fail("searched exactly"))
        by_codes = find_examples(model, dataset, "validation", ExampleOptions(queries=3), index)
        assert neighbor_names(by_codes) == neighbor_names(examples), "all images are candidates"
        assert "(searched: all 80, by 16-bit codes)" in html_page(content(by_codes, model.classes))
    else:
        assert (retrieved >= distances - 1e-5).all()
        assert (retrieved > distances + 1e-5).any()
    for retrieval, row in zip(examples.retrievals, retrieved, strict=True):
        neighbors = extract_features(np.stack([image.pixels for image, _ in retrieval.neighbors]))
        query = extract_features(retrieval.query.pixels[None])
        np.testing.assert_allclose(np.linalg.norm(neighbors - query, axis=1), row, rtol=1e-4)


def neighbor_names(examples):
    return [[image.name for image, _ in retrieval.neighbors] for retrieval in examples.retrievals]


def test_index_of_another_model_is_rejected(model, dataset, tmp_path):
    index = build_index(model, dataset, "train", tmp_path / "index")
    other = replace(model, mean_image=model.mean_image + 1)
    with pytest.raises(UserError, match="was built from different parameters than"):
        find_examples(other, dataset, "validation", ExampleOptions(), index)


def test_invalid_example_options_are_rejected():
    with pytest.raises(UserError, match="--images must be at least 1, not 0"):
        ExampleOptions(images=0)


def hostile_examples(rng):
    image = LabeledImage(rng.integers(0, 256, (32, 32, 3), np.uint8), HOSTILE, f"{HOSTILE}/字.jpg")
    return Examples([Prediction(image, [(HOSTILE, 0.9), ("字 $_", 0.1)])], [Retrieval(image, [(image, 0.5)])], "validation", 1, 2)


def content(examples, classes):
    kernels = np.random.default_rng(0).normal(size=(2, 5, 5, 3, 4))
    config = {"network": TINY.to_json(), "epochs": 3, "data": {"path": HOSTILE, "classes": classes}}
    return ReportContent(HOSTILE, config, None, [], b"", b"", color_statistics(kernels), None, examples, {"jax": jax.__version__})


def test_names_are_escaped(rng, tmp_path):
    parsed = ParsedPage(html_page(content(hostile_examples(rng), [HOSTILE, "字"])))
    assert "b" not in parsed.elements - ParsedPage(html_page(content("None", []))).elements
    assert parsed.text.count(HOSTILE) == 8  # title, heading, caption, top class, twice in retrieval, path and class name
    assert "(searched: 1 of 2, drawn at random)" in parsed.text
    examples = hostile_examples(rng)
    draw_predictions(examples.predictions, tmp_path / "predictions.png")
    draw_retrievals(examples.retrievals, tmp_path / "retrieval.png")


@pytest.mark.parametrize("num_classes", [3, 31])
def test_page_shows_confusions(num_classes, tmp_path):
    names = [f"{HOSTILE}{label}" for label in range(num_classes)]
    confusions = Confusions(num_classes)
    confusions.add(np.array([0, 0, 0, 1, 2]), np.array([0, 2, 2, 1, 0]))
    result = {
        "top1_error": 0.5, "top5_error": None, "images": 1234, "split": "test", "loss": 1.0, "epochs": 1, "seconds": 1.0,
        "images_per_second": 1.0,
    }  # fmt: skip
    page = html_page(replace(content("None", names), confusions=confusions, result=result))
    parsed = ParsedPage(page)
    assert parsed.text.count(HOSTILE) >= num_classes, "escaped"
    assert "5 test images, center crop" in parsed.text
    if num_classes == 3:
        rows = [
            re.sub("<[^>]*>", " ", row).split()
            for row in page.split("<table class=confusions>")[1].split("</table>")[0].split("<tr>")[2:]
        ]
        assert [row[1:] for row in rows] == [["1", "2"], ["1"], ["1"]]
        assert "style='--p:67%' title" in page
        draw_confusion_matrix(confusions, names, tmp_path / "confusions.png", title=HOSTILE)
        with Image.open(tmp_path / "confusions.png") as image:
            assert image.width > 100
    else:
        table = parsed.text.split("classpredicted asimages")[1]
        assert table.startswith(f"{names[0]}{names[2]}2 of 3{names[2]}{names[0]}1 of 1")


def test_report_of_a_run_shows_its_confusions(trained_run, tmp_path):
    run = RunDirectory(trained_run)
    confusions = run.read_confusions()
    assert confusions is not None
    assert 1 - np.trace(confusions.matrix) / confusions.total == pytest.approx((run.result or {})["top1_error"], abs=1e-6)
    assert "<h2>Confusions</h2>\n<p>22 validation images, center crop" in (trained_run / "report.html").read_text()
    (tmp_path / "confusion.csv").write_text("class,a,b\na,1\nb,2,x\n")
    with pytest.raises(UserError, match=r"confusion.csv is damaged: delete it"):
        RunDirectory(tmp_path).read_confusions()


def test_page_of_an_unfinished_run(rng):
    line = {"step": 5, "epoch": 1, "rate": 0.01, "loss": 1.0, "top1_error": 0.25, "top5_error": 0.125}
    parsed = ParsedPage(html_page(replace(content("Why not: <i>", []), epochs=[line])))
    assert all(text in parsed.text for text in ("25.0%", "epochs so far", "Why not: <i>"))


def test_page_omits_examples_after_multi_process_training(trained_run, tmp_path, monkeypatch):
    """Check that no predictor is run, which would wait forever for the devices of the other processes."""
    run = shutil.copytree(trained_run, tmp_path / "run")
    (run / "report.html").unlink()
    model = load(run)
    monkeypatch.setattr(alexnet_jax.analysis.report, "load", lambda _: model)
    monkeypatch.setattr(alexnet_jax.analysis.report, "find_examples", None)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    write_training_report(run)
    page = (run / "report.html").read_text()
    assert f"Omitted after multi-process training. To add them, run: alexnet-jax figures {run}" in page
