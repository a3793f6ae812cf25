"""Tests that a run folder is opened only by the training it belongs to, and that nothing of the user's is deleted."""

import json
import os
import shutil
import string
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.errors import UserError
from alexnet_jax.model.layers import Dropout
from alexnet_jax.training.config import Options
from alexnet_jax.training.open_run import open_run
from alexnet_jax.training.run_config import DataRecord, RunConfig
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.training.schedule import LayerRate, StepDecay
from alexnet_jax.training.train import train
from tests.conftest import TINY_CONFIG, assert_train_raises, read_log
from tests.tiny import TINY

DATA = DataRecord("data", {"train": 80}, ["above", "below"], "1")
CONFIG = RunConfig(TINY.with_num_classes(2), TINY_CONFIG.augmentation, DATA, TINY_CONFIG)
ONE_EPOCH = replace(TINY_CONFIG, epochs=1)
OTHER_SETTINGS = {
    "batch_size": 4, "learning_rate": 0.001, "momentum": 0.5, "weight_decay": 0.0, "seed": 1, "precision": "bfloat16",
    "gradient_dtype": "bfloat16",
    "bias_rate": 2.0, "color_epochs": 1, "schedule": StepDecay((1,)), "layer_rates": (LayerRate("conv1", 1, 0.0),),
    "layer_decays": (("conv1", 0.1),), "augmentation": Augmentation(image_size=32).without("RandomFlip"),
}  # fmt: skip


def files(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def start(folder, config=CONFIG, **options):
    open_run(folder, config, Options(**options)).close()


@pytest.mark.parametrize("name", OTHER_SETTINGS)
def test_other_settings_are_an_error_that_names_them(name, tmp_path):
    start(tmp_path / "run")
    before = files(tmp_path)
    value = OTHER_SETTINGS[name]
    other = replace(CONFIG, training=replace(TINY_CONFIG, **{name: value}))
    if name == "augmentation":
        other = replace(other, augmentation=value)
    with pytest.raises(UserError, match=rf"run has other settings \({name}.* was .*, is .*\): choose a different --run"):
        start(tmp_path / "run", other)
    assert files(tmp_path) == before
    if name == "batch_size":
        with pytest.raises(UserError, match="batch_size was 8, is 4"):
            start(tmp_path / "run", other, change_settings=True)
    else:
        start(tmp_path / "run", other, change_settings=True)


def test_number_of_epochs_and_place_of_the_data_may_differ(tmp_path):
    start(tmp_path / "run")
    names = [f"name of {name}" for name in CONFIG.data.classes]
    moved = replace(CONFIG, data=replace(CONFIG.data, path="elsewhere", display_names=names))
    start(tmp_path / "run", replace(moved, training=replace(TINY_CONFIG, epochs=9)))
    with pytest.raises(UserError, match=r"data\.checksum was 1, is 2"):
        start(tmp_path / "run", replace(CONFIG, data=replace(CONFIG.data, checksum="2")), change_settings=True)


def test_network_of_an_earlier_run_is_compared(options):
    folder = train("tiny", ONE_EPOCH, options).run
    layers = tuple(layer for layer in TINY.layers if not isinstance(layer, Dropout))
    other = replace(ONE_EPOCH, network=replace(TINY, layers=layers))
    assert_train_raises("has other settings .network.layers", other, replace(options, run=folder, change_settings=True))


def test_changed_settings_are_used_and_recorded(options):
    folder = train("tiny", ONE_EPOCH, options).run
    changed = replace(ONE_EPOCH, epochs=2, learning_rate=0.0005)
    train("tiny", changed, replace(options, run=folder, change_settings=True))
    assert json.loads((folder / "config.json").read_text())["learning_rate"] == 0.0005
    assert [line["rate"] for line in read_log(folder) if "epoch" in line] == pytest.approx([0.002, 0.0005])


names = st.text(string.ascii_letters + string.digits + "._- ", min_size=1, max_size=12).filter(lambda name: name.strip(". "))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    user_files=st.dictionaries(names, st.binary(max_size=20), min_size=1, max_size=4), fresh=st.booleans(), nested=st.booleans()
)
def test_folders_of_the_user_are_refused_and_left_alone(user_files, fresh, nested, tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    parent = folder / "config" if nested else folder
    parent.mkdir(exist_ok=True)
    for name, content in user_files.items():
        (parent / name).write_bytes(content)
    (folder / "config.json").write_text('{"network": "home"}')
    before = files(folder)
    with pytest.raises(UserError, match=r"is not a run folder \(it contains "):
        start(folder, fresh=fresh)
    assert files(folder) == before


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.sampled_from([".", "checkpoints", "tensorboard", "evaluation/photos-test", "own"]),
    user_files=st.dictionaries(names.map(lambda name: f"{name}.txt"), st.binary(max_size=20), min_size=1, max_size=4),
)
def test_fresh_deletes_only_what_the_package_wrote(place, user_files, tmp_path_factory):
    run = tmp_path_factory.mktemp("parent") / "run"
    start(run)
    for name in (
        "checkpoints/10/state/array", "checkpoints/20.orbax-checkpoint-tmp-1/x", "log.jsonl", "result.json", "report.html",
        "evaluation/photos-test/errors.json", "tensorboard/events.out.tfevents.1.host",
    ):  # fmt: skip
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("ours")
    (run / place).mkdir(parents=True, exist_ok=True)
    for name, content in user_files.items():
        (run / place / name).write_bytes(content)
    start(run, fresh=True)
    kept = {str(Path(place) / name): content for name, content in user_files.items()}
    left = files(run)
    assert {name: left.pop(name) for name in kept} == kept
    assert left.keys() == {"config.json", ".lock"}
    assert os.listdir(run.parent) == ["run"]


def test_fresh_training_equals_the_first(options, tmp_path):
    options = replace(options, run=tmp_path / "runs" / "run")
    folder = train("tiny", ONE_EPOCH, options).run
    before = read_log(folder)
    (tmp_path / "runs" / "run.deleted").mkdir()
    (tmp_path / "runs" / "run.deleted" / "mine.txt").write_text("…")
    assert read_log(train("tiny", ONE_EPOCH, replace(options, fresh=True)).run) == before
    assert (tmp_path / "runs" / "run.deleted" / "mine.txt").exists()


@pytest.mark.parametrize("fresh", [False, True])
def test_second_training_in_a_folder_is_an_error(fresh, tmp_path):
    with closing(open_run(tmp_path / "run", CONFIG, Options())):
        before = files(tmp_path)
        with pytest.raises(UserError, match=r"another process is training in .*run: wait"):
            start(tmp_path / "run", fresh=fresh)
        assert files(tmp_path) == before
    start(tmp_path / "run", fresh=fresh)


@pytest.mark.parametrize("name", ["exp[1]", "exp*", "what?"])
def test_names_that_orbax_takes_for_patterns_are_refused(name, tmp_path):
    with pytest.raises(UserError, match="takes for a pattern: choose a different --run"):
        start(tmp_path / name / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["checkpoints", "checkpoints/4", "checkpoints/4/", "evaluation"])
def test_part_of_a_run_folder_names_the_run_folder(part, tmp_path):
    start(tmp_path / "run")
    with pytest.raises(UserError, match=f"is inside the run folder {tmp_path}/run: pass --run {tmp_path}/run"):
        start(Path(f"{tmp_path}/run/{part}"))


def test_links_and_relative_paths_are_the_same_run(tmp_path, monkeypatch):
    start(tmp_path / "run")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    for same in ("link", "run/", "./run", "link/../run"):
        with closing(open_run(Path(same), CONFIG, Options())), pytest.raises(UserError, match="another process"):
            start(tmp_path / "run")


def test_longer_training_discards_the_old_result(options, capsys):
    folder = train("tiny", ONE_EPOCH, options).run
    stops = iter([False] * 5)
    result = train("tiny", replace(ONE_EPOCH, epochs=2), options, should_stop=lambda: next(stops, True))
    assert not result.finished
    assert not (folder / "result.json").exists()
    train("tiny", replace(ONE_EPOCH, epochs=2), options)
    capsys.readouterr()
    assert train("tiny", ONE_EPOCH, options).finished
    assert "2 epochs" in (output := capsys.readouterr().err)
    assert "more than 2 --epochs to continue" in " ".join(output.split())


def test_finished_run_without_checkpoints_is_not_started_over(options, tmp_path):
    options = replace(options, run=tmp_path / "run")
    train("tiny", ONE_EPOCH, options)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    result = (tmp_path / "run" / "result.json").read_bytes()
    message = "is finished, but has no checkpoint to continue from: choose a different --run, or pass --fresh to start over"
    assert_train_raises(message, replace(ONE_EPOCH, epochs=2), options)
    assert (tmp_path / "run" / "result.json").read_bytes() == result


@pytest.mark.parametrize("content", ["", '{"network"', "[]", "\0"])
def test_damaged_config_of_a_run_is_named(content, tmp_path):
    start(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(content)
    before = files(tmp_path)
    with pytest.raises(UserError, match=r"run/config.json is damaged: restore it, or choose a different run"):
        start(tmp_path / "run")
    assert files(tmp_path) == before


INVALID_ENTRIES = {
    "data.path": (None, "path"), "data.classes": (["above", 2], "classes|DataRecord"),
    "data.display_names": (["one"], "display_names"),
    "augmentation.image_size": (0, "image_size"), "augmentation.mean": ("mean", "mean"),
    "epochs": (float("nan"), "epochs"), "seed": (2**70, "--seed must be"), "momentum": ("0.9", "momentum|real number"),
    "precision_of_sums": (1, None), "batch_size": (..., "no 'batch_size'"),
    "layer_rates": ([3], "mapping"), "data": ([], "mapping"),
}  # fmt: skip


@pytest.mark.parametrize("name", INVALID_ENTRIES)
def test_invalid_entry_of_a_config_is_refused_with_the_name_of_its_file(name, tmp_path):
    record = json.loads(json.dumps(CONFIG.to_json()))
    *parents, key = name.split(".")
    part = record[parents[0]] if parents else record
    part[key], reason = INVALID_ENTRIES[name]
    if part[key] is ...:
        del part[key]
    if reason is None:
        assert RunConfig.from_json(record, tmp_path).to_json() == CONFIG.to_json()
        return
    with pytest.raises(UserError, match=rf"{tmp_path} has no valid config \(.*{reason}.*\): use the version that saved it"):
        RunConfig.from_json(record, tmp_path)


NULL_STEPS = json.dumps(
    {"config": "x", "top1_error": 0.5, "top5_error": None, "loss": 1.0, "images": 2, "split": "validation", "epochs": 1}
    | {"steps": None, "ended_by_schedule": False, "seconds": 1.0, "images_per_second": 1.0}
)


@pytest.mark.parametrize("content", ["", '{"x', "[]", "{}", '{"steps": 1}', NULL_STEPS])
def test_damaged_result_of_a_run_is_named(content, tmp_path):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(UserError, match=r"result.json is damaged: delete it, and run the training command again"):
        _ = RunDirectory(tmp_path).result


@pytest.mark.parametrize("damaged", ["x", "[]", '{"step": 1}', '{"loss": 1.0}', "\0"])
def test_damaged_line_of_a_log_is_named_and_an_incomplete_last_line_is_not_read(damaged, tmp_path):
    line = '{"step": 1, "loss": 2.0}'
    (tmp_path / "log.jsonl").write_text(f"{line}\n{damaged}\n{line}\n")
    with pytest.raises(UserError, match=r"line 2 of .*log.jsonl is damaged: delete this line"):
        RunDirectory(tmp_path).log_lines()
    (tmp_path / "log.jsonl").write_text(f"{line}\n{line[:-4]}")
    assert RunDirectory(tmp_path).log_lines() == [{"step": 1, "loss": 2.0}]
