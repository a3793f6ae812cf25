"""Tests of the choice of the form of the training step, most of them with steps and a clock that are stubs."""

import json
import os
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from alexnet_jax.model.layers import TOWER
from alexnet_jax.model.lowering import conv_lowering, current_conv_lowering, current_lowering, tower_lowering
from alexnet_jax.parallel.gradients import GradientSum
from alexnet_jax.parallel.mesh import DATA
from alexnet_jax.training import setup, step_trials, tuning
from alexnet_jax.training.optimizer import paper_update
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.training.step import TrainMetrics, TrainState
from alexnet_jax.training.step_form import StepForm, alternative_forms, default_form
from alexnet_jax.training.step_trials import Trial, TuningTask
from alexnet_jax.training.train import train
from alexnet_jax.training.tuning import Tuning, choose_form, tuning_key
from alexnet_kernels import default_implementation
from alexnet_kernels.dispatch import current_order
from tests.conftest import TINY_CONFIG, StopAfter, cpu_mesh, read_log
from tests.tiny import TINY

MESH = cpu_mesh(TINY, 1, split=False)
DEFAULT = StepForm("triton", "split", "grouped", "direct")
REFERENCE = StepForm("xla", "split", "separate", "direct")
ALTERNATIVES = {
    "kernels": ("triton", "xla"),
    "placement": ("split", "single"),
    "towers": ("grouped", "separate"),
    "conv1": ("direct", "space_to_depth"),
}
COMPILE_S = 1.0


class Steps:
    """Stub of training steps: a clock, and for every form its seconds and the changes that it makes to correct results."""

    def __init__(self):
        self.now, self.measured = 0.0, []
        self.seconds = lambda form: 0.01
        self.result = lambda form, opt_state, loss: (opt_state, loss)
        self.compile = lambda form: None

    def perf_counter(self):
        return self.now

    monotonic = perf_counter

    def make_step(self, form):
        def compile_step():
            self.now += COMPILE_S
            self.compile(form)
            return step

        def step(state, *_):
            self.now += self.seconds(form)
            opt_state, loss = self.result(form, jax.tree.map(jnp.ones_like, state.opt_state), 2.0)
            return state.replace(opt_state=opt_state), TrainMetrics(np.float32(loss), np.float32(0))

        self.measured.append(form)
        return MESH, SimpleNamespace(lower=lambda *_: SimpleNamespace(compile=compile_step))


@pytest.fixture
def steps(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    stub = Steps()
    monkeypatch.setattr(step_trials, "time", stub)
    monkeypatch.setattr(step_trials, "ROUND_S", 0.0)
    monkeypatch.setattr(tuning, "measure_matmul_flops", lambda *_: 1e12)
    monkeypatch.setattr(tuning, "training_flops_per_image", lambda _: 1e9)
    params = {name: {"kernel": np.ones((2, 3), np.float32), "bias": np.ones(2, np.float32)} for name in ("conv1", "fc7")}

    def initial_state(network, mesh, optimizer, seed):
        return TrainState(jnp.zeros((), jnp.int32), jax.device_put(params), optimizer.init(params))

    monkeypatch.setattr(step_trials, "initial_state", initial_state)
    return stub


@pytest.fixture
def task(steps):
    return TuningTask(
        network=TINY,
        optimizer=paper_update(),
        precision="float32",
        gradient_sum=GradientSum(),
        batch_size=8,
        mean=np.zeros((29, 29, 3), np.float32),
        crop_mean=True,
        requested_placement="auto",
        default=DEFAULT,
        alternatives=ALTERNATIVES,
        make_step=steps.make_step,
    )


@pytest.fixture
def run(tmp_path):
    folder = RunDirectory(tmp_path / "run")
    folder.checkpoints.mkdir(parents=True)
    folder.write("config.json", {})
    return folder


LONG = 10**9
"""Steps of a long training."""


def gpu_mesh(devices=1, capability="9.0", *, split=False, kind="NVIDIA H200"):
    device = Mock(platform="gpu", device_kind=kind, compute_capability=capability)
    shape = {DATA: devices // 2, TOWER: 2} if split else {DATA: devices}
    return Mock(Mesh, devices=np.array([device] * devices), size=devices, axis_names=tuple(shape), shape=shape)


GPU = gpu_mesh()


def choose(run, task, tune: Any = "auto", steps=LONG, mesh: Any = GPU):
    return choose_form(run, task, mesh, tune, steps=steps).form


def test_fields_are_tuned_one_at_a_time(run, task, steps, capsys):
    gains = {"xla": 2, "single": 3, "separate": 5, "space_to_depth": 4}

    def seconds(form):
        return 0.1 * np.prod([1 / gains.get(value, 1) for value in vars(form).values()])

    steps.seconds = seconds
    best = StepForm("xla", "single", "separate", "space_to_depth")
    assert choose(run, task) == best
    assert steps.measured == [
        REFERENCE, DEFAULT, replace(REFERENCE, kernels="triton"), replace(best, conv1="direct"),
        replace(best, conv1="direct", towers="grouped"), best,
    ]  # fmt: skip
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "tuning the training step (1 × NVIDIA H200, batch 8, float32) for at most 120 s; --tune off skips this"
    assert lines[1] == "  kernels xla, placement split, conv1 direct: 10 ms per step, compiled in 1.0 s"
    assert lines[-1].startswith("fastest: kernels xla, placement single, towers separate, conv1 space_to_depth; stored in ")
    assert len(lines) == len(steps.measured) + 2


@pytest.mark.parametrize("slow", ["xla", "single", "separate", "space_to_depth"])
def test_slow_candidate_loses(run, task, steps, slow):
    steps.seconds = lambda form: 0.01 if slow in vars(form).values() else 0.005
    assert slow not in vars(choose(run, task)).values()


def raises(error):
    def fail(*_):
        raise error

    return fail


def changed(factor):
    def change(form, opt_state, loss):
        return jax.tree.map(lambda v: v.at[(0,) * v.ndim].multiply(factor) if v.ndim else v, opt_state), loss

    return change


FAULTS = {
    "gradients": ("result", lambda form, opt_state, loss: (jax.tree.map(lambda v: 1.1 * v, opt_state), loss),
                  "its gradient of conv1/bias differs from the reference by 10.0%, more than 2%"),
    "one gradient": ("result", changed(1e6), "its gradient of .* differs from the reference"),
    "NaN": ("result", changed(np.nan), "its gradient of .* differs from the reference by nan%"),
    "loss": ("result", lambda form, opt_state, loss: (opt_state, 1.1 * loss),
             "its loss differs from the reference by 10.0%, more than 2%"),
    "compilation": ("compile", raises(NotImplementedError("no\nlowering")),
                    r"it does not compile \(NotImplementedError: no lowering\)"),
    "memory when compiled": ("compile", raises(RuntimeError("RESOURCE_EXHAUSTED: Out of memory")),
                             r"it does not fit in memory \(RuntimeError: RESOURCE_EXHAUSTED"),
    "memory when run": ("seconds", raises(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")),
                        r"it does not fit in memory \(JaxRuntimeError: RESOURCE_EXHAUSTED"),
    "run": ("seconds", raises(RuntimeError("illegal memory access")), r"it cannot be run \(RuntimeError: illegal"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_candidate_is_dropped_with_one_line(run, task, steps, capsys, fault):
    """Inject a fault into the kernels of the default form, which would be the fastest."""
    name, faulty, message = FAULTS[fault]
    correct = getattr(steps, name)
    setattr(steps, name, lambda form, *args: (faulty if form.kernels == "triton" else correct)(form, *args))
    if name != "seconds":
        steps.seconds = lambda form: 0.001 if form.kernels == "triton" else 0.01
    assert choose(run, task).kernels == "xla"
    lines = [line for line in capsys.readouterr().err.splitlines() if "dropped" in line]
    assert lines
    for line in lines:
        assert re.match(rf"  kernels triton, .*: dropped, {message}", line)


def test_correct_numbers_may_differ_by_rounding(run, task, steps):
    steps.seconds = lambda form: 0.001 if form.kernels == "triton" else 0.01
    error = lambda form: 1e-3 * (form.kernels == "triton")  # noqa: E731
    steps.result = lambda form, opt_state, loss: (jax.tree.map(lambda v: (1 + error(form)) * v, opt_state), loss)
    assert choose(run, task).kernels == "triton"


@pytest.mark.parametrize("fault", ["NaN", "compilation", "memory when run"])
def test_default_is_used_without_a_reference(run, task, steps, capsys, fault):
    name, faulty, _ = FAULTS[fault]
    setattr(steps, name, faulty)
    assert choose(run, task) == DEFAULT
    assert steps.measured == [REFERENCE]
    assert "no form can be measured; using kernels triton" in capsys.readouterr().err
    assert not os.path.exists(os.environ["XDG_CACHE_HOME"])


@pytest.mark.parametrize("forms", [2, 3])
def test_no_form_is_started_after_the_time_limit_but_the_default_is_always_compared(run, task, steps, capsys, monkeypatch, forms):
    monkeypatch.setitem(tuning.MAX_SECONDS, "gpu", {2: 0.5, 3: 3.9}[forms] * COMPILE_S)
    steps.seconds = lambda form: 0.01 if form.kernels == "xla" else 0.005
    choose(run, task)
    assert steps.now < 3.9 * COMPILE_S
    assert steps.measured == [REFERENCE, DEFAULT, replace(DEFAULT, kernels="xla")][:forms]
    assert "not measured, because the time is up" in capsys.readouterr().err


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
    run.write("config.json", {"tuning": Tuning(tuning_key(task, GPU), own).to_json()})
    steps.measured.clear()
    assert choose(run, task, tune) == own
    assert not steps.measured


def test_run_on_another_device_is_tuned_again(run, task, steps):
    run.write("config.json", {"tuning": Tuning({**tuning_key(task, GPU), "device": "NVIDIA A100"}, DEFAULT).to_json()})
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


def test_alternatives_follow_devices_and_options():
    def alternatives(mesh, placement: Any = "auto", network=TINY, batch_size=8, devices=None):
        return alternative_forms(network, mesh, placement, devices=devices, precision="bfloat16", batch_size=batch_size)

    one, two = gpu_mesh(), gpu_mesh(2, split=True)
    assert list(alternatives(one)) == ["kernels", "towers", "conv1"]
    assert list(alternatives(gpu_mesh(capability="7.5"))) == ["towers", "conv1"], "a T4 has no Triton"
    assert list(alternatives(two)) == ["kernels", "placement", "towers", "conv1"]
    assert list(alternatives(two, "split")) == ["kernels", "conv1"]
    assert "placement" not in alternatives(two, batch_size=9)
    assert list(alternatives(cpu_mesh(TINY, 1, split=True))) == ["placement", "conv1"]
    assert list(alternatives(cpu_mesh(TINY, 1, split=True), devices=2)) == ["conv1"], "single would divide the batch"
    assert list(alternatives(MESH)) == ["conv1"]
    assert list(alternatives(one, network=replace(TINY, towers=1))) == ["kernels", "conv1"]
    assert list(alternatives(one, network=replace(TINY, layers=TINY.layers[4:]))) == ["kernels", "towers"], "conv2 has no stride"
    with default_implementation("xla"), tower_lowering("separate"), conv_lowering("space_to_depth"):
        assert alternatives(two, "split") == {}, "what the program sets is kept"
        assert default_form(one, "bfloat16") == StepForm("xla", "single", "separate", "space_to_depth")
    assert default_form(two, "bfloat16") == StepForm("triton", "split", "grouped", "direct")
    assert default_form(gpu_mesh(capability="7.5"), "float32") == StepForm("xla", "single", "grouped", "direct")
    assert default_form(MESH, "float32") == StepForm("xla", "single", "separate", "direct")


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


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_forms_of_a_real_step_are_measured(options, capsys, precision, monkeypatch):
    monkeypatch.setitem(tuning.MAX_SECONDS, "cpu", 1000.0)
    config = replace(TINY_CONFIG, precision=precision)
    setup.setup("tiny", config, replace(options, devices=1, tune="again")).run.close()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  kernels")]
    assert len(lines) == 2
    pattern = r"  kernels xla, placement single, towers \w+, conv1 \w+: [\d.e+]+ ms per step, compiled in [\d.]+ s"
    assert not [line for line in lines if not re.fullmatch(pattern, line)]
