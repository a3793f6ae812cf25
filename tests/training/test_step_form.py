"""Tests of the forms of the training step that devices and options allow."""

from dataclasses import replace
from typing import Any

from alexnet_jax.model.convolution import conv_lowering
from alexnet_jax.model.lowering import tower_lowering
from alexnet_jax.training.step_form import StepForm, alternative_forms, default_form
from alexnet_kernels import default_implementation
from tests.conftest import cpu_mesh
from tests.tiny import TINY
from tests.training.stub_steps import MESH, gpu_mesh


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
