"""Tests of the memory traffic that kernel-check counts in compiled code."""

from importlib import import_module
from pathlib import Path

HLO = """HloModule jit_step, is_scheduled=true

%fused_stack (a: bf16[4,8], b: bf16[4,8], c: bf16[8]) -> bf16[2,4,8] {
  %a = bf16[4,8]{1,0} parameter(0)
  %b = bf16[4,8]{1,0} parameter(1)
  %c = bf16[8]{0} parameter(2)
  %stack = bf16[2,4,8]{2,1,0} concatenate(%a, %b), dimensions={0}
  %bias = bf16[2,4,8]{2,1,0} broadcast(%c), dimensions={2}
  ROOT %sum = bf16[2,4,8]{2,1,0} add(%stack, %bias)
}

%fused_slice (s: bf16[2,4,8]) -> bf16[1,4,8] {
  %s = bf16[2,4,8]{2,1,0} parameter(0)
  ROOT %half = bf16[1,4,8]{2,1,0} slice(%s), slice={[0:1], [0:4], [0:8]}
}

%fused_update (t: f32[8,4], u: f32[4,8]) -> f32[8,4] {
  %t = f32[8,4]{1,0} parameter(0)
  %u = f32[4,8]{1,0} parameter(1)
  %turned = f32[8,4]{1,0} transpose(%u), dimensions={1,0}
  ROOT %product = f32[8,4]{1,0} multiply(%t, %turned)
}

ENTRY %main (x: bf16[4,8], y: bf16[4,8], z: bf16[8], w: f32[8,4], v: f32[4,8]) -> (bf16[1,4,8], f32[8,4]) {
  %x = bf16[4,8]{1,0} parameter(0)
  %y = bf16[4,8]{1,0} parameter(1)
  %z = bf16[8]{0} parameter(2)
  %w = f32[8,4]{1,0} parameter(3)
  %v = f32[4,8]{1,0} parameter(4)
  %conv = (bf16[4,8]{1,0}, u8[0]{0}) custom-call(%x, %y), custom_call_target="__cudnn$convForward"
  %result = bf16[4,8]{1,0} get-tuple-element(%conv), index=0
  %loop_add_fusion = bf16[2,4,8]{2,1,0} fusion(%result, %y, %z), kind=kLoop, calls=%fused_stack
  %loop_slice_fusion = bf16[1,4,8]{2,1,0} fusion(%loop_add_fusion), kind=kLoop, calls=%fused_slice
  %input_transpose_fusion = f32[8,4]{1,0} fusion(%w, %v), kind=kInput, calls=%fused_update
  %copy = f32[8,4]{0,1} copy(%input_transpose_fusion)
  ROOT %tuple = (bf16[1,4,8]{2,1,0}, f32[8,4]{0,1}) tuple(%loop_slice_fusion, %copy)
}
"""


def test_glue_is_what_only_rearranges(monkeypatch):
    """A stack with a bias, a slice and a copy are glue; a convolution, and an update with a transposition, are not."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "experiments" / "kernels")
    hlo = import_module("hlo")
    convolution, update, copy = 3 * 64, 3 * 128, 2 * 128
    stack, slice_of_half = 64 + 64 + 16 + 128, 64 + 64
    glue = stack + slice_of_half + copy
    assert hlo.traffic(HLO) == hlo.Traffic(kernels=5, moved=convolution + update + glue, glue=glue)
