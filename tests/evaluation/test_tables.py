"""Tests of the formatting of errors."""

from alexnet_jax.evaluation.tables import format_errors


def test_line_of_errors():
    metrics = {"top1_error": 0.375, "top5_error": 0.17, "mean_class_error": 0.25, "loss": 1.614660}
    line = "ten     top-1 error 37.50%  top-5 error 17.00%  mean class error 25.00%  loss 1.6147  net"
    assert format_errors("net", "ten", metrics) == line
    assert format_errors("net", "ten", metrics | {"top5_error": None}) == line.replace("  top-5 error 17.00%", "")
