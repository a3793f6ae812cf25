"""Training steps and a clock that are stubs, for tests of the choice of the form of the step."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.model.layers import TOWER
from alexnet_jax.parallel.mesh import DATA
from alexnet_jax.training.step import TrainMetrics
from alexnet_jax.training.step_form import StepForm
from alexnet_jax.training.tuning import choose_form
from tests.conftest import cpu_mesh
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


LONG = 10**9
"""Steps of a long training."""


def gpu_mesh(devices=1, capability="9.0", *, split=False, kind="NVIDIA H200"):
    device = Mock(platform="gpu", device_kind=kind, compute_capability=capability)
    shape = {DATA: devices // 2, TOWER: 2} if split else {DATA: devices}
    return Mock(Mesh, devices=np.array([device] * devices), size=devices, axis_names=tuple(shape), shape=shape)


GPU = gpu_mesh()


def choose(run, task, tune: Any = "auto", steps=LONG, mesh: Any = GPU):
    return choose_form(run, task, mesh, tune, steps=steps).form
