"""Tests of when the form of the training step is measured, stored and used again."""

import json
from dataclasses import asdict, replace

import jax
import pytest

from alexnet_jax.model.convolution import current_conv_lowering
from alexnet_jax.model.layers import TOWER
from alexnet_jax.model.lowering import current_lowering
from alexnet_jax.training import setup, tuning
from alexnet_jax.training.step_form import StepForm
from alexnet_jax.training.step_trials import Trial
from alexnet_jax.training.train import train
from alexnet_jax.training.tuning import Tuning, tuning_key
from alexnet_kernels.dispatch import current_order
from tests.conftest import TINY_CONFIG, StopAfter, read_log
from tests.tiny import TINY
from tests.training.stub_steps import DEFAULT, GPU, MESH, choose, gpu_mesh


def test_short_training_is_not_measured(run, task, steps, capsys):
    seconds_per_step = 8 * 1e9 / (tuning.MATMUL_FRACTION * 1e12)
    assert choose(run, task, steps=int(0.99 * tuning.MIN_TRAINING_S / seconds_per_step)) == DEFAULT
    assert not steps.measured
    assert not capsys.readouterr().err
    choose(run, task, steps=int(1.01 * tuning.MIN_TRAINING_S / seconds_per_step))
    assert steps.measured
    assert "for at most 30 s" in capsys.readouterr().err


def test_only_placement_is_measured_on_a_cpu_unless_requested(run, task, steps, capsys):
    steps.seconds = lambda form: 0.0094 if form.placement == "single" else 0.001 if form.conv1 == "space_to_depth" else 0.01
    assert choose(run, task, mesh=MESH).placement == "single"
    assert "for at most 30 s" in capsys.readouterr().err
    assert {form.conv1 for form in steps.measured} == {"direct"}
    steps.seconds = lambda form: 0.0096 if form.placement == "single" else 0.01
    assert choose(run, task, "again", steps=1, mesh=MESH) == DEFAULT, "a gain of 4 % may be noise"
    assert {form.conv1 for form in steps.measured} == {"direct", "space_to_depth"}


def test_measurement_is_stored_and_used_by_later_trainings(run, task, steps):
    steps.seconds = lambda form: 0.001 if form.conv1 == "space_to_depth" else 0.01
    chosen = choose(run, task)
    assert chosen.conv1 == "space_to_depth"
    steps.measured.clear()
    assert choose(run, task, steps=1) == chosen
    assert not steps.measured
    assert choose(run, task, "off") == DEFAULT
    assert not steps.measured, "off measures nothing"
    other = replace(task, batch_size=16)
    choose(run, other)
    assert steps.measured
    steps.seconds = lambda form: 0.01 if form.conv1 == "space_to_depth" else 0.001
    assert choose(run, task) == chosen
    assert choose(run, task, "again") != chosen
    assert choose(run, task).conv1 == "direct", "again replaces the stored choice"


DAMAGE = {
    "empty": lambda text: "",
    "truncated": lambda text: text[: len(text) // 2],
    "no object": lambda text: "[]",
    "no form": lambda text: '{"key": %s}' % json.dumps(json.loads(text)["key"]),  # noqa: UP031
    "unknown value": lambda text: text.replace('"conv1": "direct"', '"conv1": "winograd"'),
    "list as value": lambda text: text.replace('"conv1": "direct"', '"conv1": []'),
    "other field": lambda text: text.replace('"conv1": "direct"', '"conv2": "direct"'),
    "other key": lambda text: text.replace('"batch_size": 8', '"batch_size": 9'),
    "no text": lambda text: "\xff",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_cache_is_replaced(run, task, steps, tmp_path, damage):
    assert choose(run, task) == choose(run, task)
    (file,) = (tmp_path / "cache").rglob("*.json")
    intact = file.read_text()
    damaged = DAMAGE[damage](intact)
    assert damaged != intact
    file.write_bytes(damaged.encode("latin-1"))
    steps.measured.clear()
    choose(run, task)
    assert steps.measured
    assert json.loads(file.read_text())["form"] == json.loads(intact)["form"]


def test_cache_folder_that_cannot_be_written(run, task, steps, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    choose(run, task)
    assert capsys.readouterr().err.splitlines()[-1].endswith("conv1 direct")


@pytest.mark.parametrize("cache", ["none", "lost", "of another choice"])
@pytest.mark.parametrize("tune", ["auto", "off"])
def test_resumed_run_keeps_its_form(run, task, steps, tmp_path, cache, tune):
    own = StepForm("xla", "split", "grouped", "space_to_depth")
    if cache != "none":
        choose(run, task)
    if cache == "lost":
        next((tmp_path / "cache").rglob("*.json")).unlink()
    run.write("config.json", {"tuning": asdict(Tuning(tuning_key(task, GPU), own))})
    steps.measured.clear()
    assert choose(run, task, tune) == own
    assert not steps.measured


def test_run_on_another_device_is_tuned_again(run, task, steps):
    run.write("config.json", {"tuning": asdict(Tuning({**tuning_key(task, GPU), "device": "NVIDIA A100"}, DEFAULT))})
    (run.checkpoints / "10").mkdir()
    choose(run, task)
    assert steps.measured


def test_resumed_run_of_an_earlier_version_keeps_the_default(run, task, steps):
    (run.checkpoints / "10").mkdir()
    assert choose(run, task) == DEFAULT
    assert not steps.measured


def test_key_contains_all_that_the_fastest_form_depends_on(task, monkeypatch):
    def digest(task, mesh):
        return tuning._cache_file(tuning_key(task, mesh))

    files = [
        digest(task, gpu_mesh()),
        digest(task, gpu_mesh(kind="NVIDIA A100")),
        digest(task, gpu_mesh(2)),
        digest(replace(task, network=replace(TINY, layers=(*TINY.layers[:-1], TINY.layers[-1].clone(features=8)))), gpu_mesh()),
        digest(replace(task, batch_size=16), gpu_mesh()),
        digest(replace(task, precision="bfloat16"), gpu_mesh()),
        digest(replace(task, requested_placement="single"), gpu_mesh()),
    ]
    assert digest(task, gpu_mesh()) == files[0]
    monkeypatch.setattr(jax, "__version__", "0.0.1")
    files.append(digest(task, gpu_mesh()))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    files.append(digest(task, gpu_mesh()))
    monkeypatch.setattr(tuning, "__version__", "0.0.1")
    files.append(digest(task, gpu_mesh()))
    assert len(set(files)) == len(files)


CHOSEN = StepForm("xla", "single", "separate", "space_to_depth")


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """List of tuned tasks, in all of which `CHOSEN` is the fastest form; the cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tasks = []

    def measure(task, limit):
        tasks.append(task)
        return [Trial(task.default, 0.2, 0.0), Trial(CHOSEN, 0.1, 0.0)]

    monkeypatch.setattr(tuning, "measure_forms", measure)
    return tasks


def test_setup_makes_both_steps_in_the_form_of_the_run(options, measured, monkeypatch):
    made = {}

    def record(name):
        def make(network, mesh, *args, **kwargs):
            made[name] = TOWER in mesh.axis_names, current_order(), current_lowering(), current_conv_lowering()
            return lambda *_: None

        return make

    for name in ("make_train_step", "make_evaluation_step"):
        monkeypatch.setattr(setup, name, record(name))
    options = replace(options, placement="single", devices=1)
    for tune, lowering in (("auto", ("separate", "direct")), ("again", ("separate", "space_to_depth"))):
        context = setup.setup("tiny", TINY_CONFIG, replace(options, tune=tune))
        context.run.close()
        assert made == dict.fromkeys(("make_train_step", "make_evaluation_step"), (False, ("xla",), *lowering))
    assert len(measured) == 1, "the training is too short to be tuned"


@pytest.mark.slow
def test_resumed_training_applies_its_form_and_equals_an_uninterrupted_one(options, measured, tmp_path):
    """Delete the cache between two parts of a training with a form that is not the default."""
    config, options = replace(TINY_CONFIG, epochs=1), replace(options, devices=1, tune="again")
    uninterrupted = train("tiny", config, options).run
    interrupted = replace(options, runs_dir=tmp_path / "interrupted")
    train("tiny", config, interrupted, should_stop=StopAfter(5))
    next((tmp_path / "cache").rglob("*.json")).unlink()
    resumed = train("tiny", config, replace(interrupted, tune="auto")).run
    assert len(measured) == 2
    assert read_log(resumed) == read_log(uninterrupted)
    assert json.loads((resumed / "config.json").read_text())["tuning"]["form"] == vars(CHOSEN)
