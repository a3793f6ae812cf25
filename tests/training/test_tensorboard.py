"""Tests of the writer of TensorBoard event files."""

import struct

import pytest

from alexnet_jax.training.tensorboard import EventWriter, record
from alexnet_jax.training.train import train
from tests.conftest import TINY_CONFIG, read_log


def test_record_has_length_and_two_checksums():
    framed = record(b"123456789")
    length, _, data, masked = struct.unpack("<QI9sI", framed)
    assert (length, data) == (9, b"123456789")
    unmasked = (masked - 0xA282EAD8) & 0xFFFFFFFF
    assert (unmasked >> 17 | unmasked << 15) & 0xFFFFFFFF == 0xE3069283


def test_event_is_encoded_as_protocol_buffer(tmp_path, monkeypatch):
    """Compare the bytes of a file with messages encoded by hand, as in tensorflow/core/util/event.proto."""
    monkeypatch.setattr("alexnet_jax.training.tensorboard.time.time", lambda: 1.5)
    monkeypatch.setattr("alexnet_jax.training.tensorboard.record", lambda event: event)
    EventWriter(tmp_path / "events", start=299).write(300, "train", loss=0.5)
    (file,) = (tmp_path / "events").iterdir()
    wall_time = b"\x09" + struct.pack("<d", 1.5)
    loss = b"\x0a\x0atrain/loss" + b"\x15" + struct.pack("<f", 0.5)
    events = [
        wall_time + b"\x10\x00" + b"\x1a\x0dbrain.Event:2",
        wall_time + b"\x10\xac\x02" + b"\x3a\x02\x08\x01",
        wall_time + b"\x10\xac\x02" + b"\x2a" + bytes([len(loss) + 2]) + b"\x0a" + bytes([len(loss)]) + loss,
    ]
    assert file.read_bytes() == b"".join(events)


def test_tensorboard_reads_the_logged_values(options):
    """Check the values after a run is resumed at an earlier step; of repeated steps, TensorBoard shows only the later values."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard")
    from dataclasses import replace

    folder = train("tiny", TINY_CONFIG, replace(options, tensorboard=True)).run
    resumed = EventWriter(folder / "tensorboard", start=20)
    resumed.write(30, "train", loss=7.0)
    events = reader.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    shown = {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    lines = read_log(folder)
    losses = {line["step"]: line["loss"] for line in lines if "epoch" not in line and line["step"] <= 20}
    assert shown["train/loss"] == pytest.approx({**losses, 30: 7.0})
    errors = {line["step"]: line["top1_error"] for line in lines if "epoch" in line and line["step"] <= 20}
    assert shown["validation/top1_error"] == pytest.approx(errors)
    assert {"train/rate", "train/images_per_second", "train/matmul_fraction", "validation/loss"} <= set(shown)
