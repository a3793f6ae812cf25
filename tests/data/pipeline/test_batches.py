"""The stream of batches: the same however, wherever and from whenever it is read."""

import itertools
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from alexnet_jax.data.images import encode_jpeg
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.batches import LoaderOptions, evaluation_batches, training_batches
from alexnet_jax.data.prepare.shards import new_dataset
from alexnet_jax.data.records import Record, open_dataset
from alexnet_jax.errors import UserError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "numbers"
    rng = np.random.default_rng(0)
    with new_dataset(path, [str(i) for i in range(50)], size=32) as writer:
        for i in range(50):
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            writer.write("train", Record(encode_jpeg(pixels), i, f"{i}.jpg"), pixels)
    return open_dataset(path)


AUGMENTATION = Augmentation(image_size=32)


def stream(dataset, count, augmentation=AUGMENTATION, **kwargs):
    batches = training_batches(dataset, augmentation, input_size=24, batch_size=8, seed=5, **kwargs)
    return list(itertools.islice(batches, count))


def arrays(batch):
    return [batch.image, batch.label, batch.color_shift, *(batch.crop or ())]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))


@pytest.mark.parametrize(
    "readers", [LoaderOptions(threads=1), LoaderOptions(threads=4), LoaderOptions(threads=2, memory_share=0.0)], ids=str
)
def test_any_number_of_threads_gives_the_same_stream(dataset, readers):
    assert all(map(same, stream(dataset, 15), stream(dataset, 15, readers=readers)))


PROGRAM = """
import itertools, sys
from pathlib import Path
import jax
import numpy as np
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.batches import LoaderOptions, training_batches
from alexnet_jax.data.records import open_dataset

if __name__ == "__main__":
    batches = training_batches(
        open_dataset(Path(sys.argv[1])), Augmentation(image_size=32), input_size=24, batch_size=8, seed=5, start=2,
        readers=LoaderOptions(processes=2),
    )
    images, labels = zip(*((batch.image, batch.label) for batch in itertools.islice(batches, 9)))
    np.savez(sys.argv[2], images=images, labels=labels)
"""


def test_processes_give_the_same_stream(dataset, tmp_path):
    """In a program of its own, with JAX loaded, as training has it."""
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), str(dataset.path), str(tmp_path / "found.npz")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    found = np.load(tmp_path / "found.npz")
    whole = stream(dataset, 11)[2:]
    np.testing.assert_array_equal(found["images"], [batch.image for batch in whole])
    np.testing.assert_array_equal(found["labels"], [batch.label for batch in whole])


@pytest.mark.parametrize("start", [1, 6, 7, 13])
def test_the_stream_goes_on_where_it_stopped(dataset, start):
    assert all(map(same, stream(dataset, 15)[start:], stream(dataset, 15 - start, start=start)))


@pytest.mark.parametrize("images_per_crop", [1, 3, 32])
@pytest.mark.parametrize("count", [2, 4])
def test_parts_of_hosts_make_up_the_batches(dataset, count, images_per_crop):
    augmentation = replace(AUGMENTATION, images_per_crop=images_per_crop)
    rows = [slice(8 * i // count, 8 * (i + 1) // count) for i in range(count)]
    parts = [stream(dataset, 9, augmentation, part=part) for part in rows]
    for step, whole in enumerate(stream(dataset, 9, augmentation)):
        for i in range(count):
            for part, values in zip(arrays(parts[i][step]), arrays(whole), strict=True):
                np.testing.assert_array_equal(part, values[rows[i]])


def test_an_epoch_shows_every_image_once_in_a_new_order(dataset):
    labels = np.concatenate([batch.label for batch in stream(dataset, 25)])
    epochs = labels[:200].reshape(4, 50)
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])


def test_batches_are_not_written_to_again(dataset):
    """Whoever keeps batches keeps them: threads reuse memory of their own only."""
    kept = stream(dataset, 20, readers=LoaderOptions(threads=2, memory_share=0.0))
    assert all(map(same, kept, stream(dataset, 20, readers=LoaderOptions(threads=1))))


def test_raw_records_give_the_images_they_hold(dataset, tmp_path):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (20, 32, 32, 3), np.uint8)
    with new_dataset(tmp_path / "raw", [str(i) for i in range(20)], size=32, encoding="raw") as writer:
        for i, pixels in enumerate(images):
            writer.write("train", Record(pixels.tobytes(), i, f"{i}.png"), pixels)
    raw = open_dataset(tmp_path / "raw")
    (whole,) = evaluation_batches(raw, "train", image_size=32, input_size=32, batch_size=20)
    np.testing.assert_array_equal(whole.image, images)
    (half,) = evaluation_batches(raw, "train", image_size=16, input_size=16, batch_size=20)
    np.testing.assert_allclose(half.image, images.reshape(20, 16, 2, 16, 2, 3).mean((2, 4)), atol=0.5)
    for batch in stream(raw, 5):
        assert batch.crop is not None
        for image, label, (top, left), flipped in zip(batch.image, batch.label, *batch.crop, strict=True):
            part = images[label, top : top + 24, left : left + 24]
            np.testing.assert_array_equal(image, part[:, ::-1] if flipped else part)


def test_what_cannot_be_read_is_said(dataset, tmp_path):
    with pytest.raises(UserError, match="holds images of 32 pixels, not 24: choose an image size of 32, 16, 8, 4"):
        stream(dataset, 1, replace(AUGMENTATION, image_size=24))
    with pytest.raises(UserError, match="choose one or more --threads"):
        stream(dataset, 1, readers=LoaderOptions(threads=0))
    with pytest.raises(UserError, match="the seed is -1"):
        next(training_batches(dataset, AUGMENTATION, input_size=24, batch_size=8, seed=-1))
    with new_dataset(tmp_path / "bad", ["a"], size=32) as writer:
        writer.write("train", Record(b"no picture", 0, "photo.jpg"), np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(UserError, match=r"photo\.jpg in .* is damaged .*: prepare the data set again"):
        stream(open_dataset(tmp_path / "bad"), 1)


@pytest.mark.slow
def test_processes_end_with_their_parent(tmp_path):
    """Also if that was killed, and not by the signals that it has to stop in order after."""
    program = f"""
import multiprocessing, sys, time
sys.path[:0] = {sys.path!r}
from alexnet_jax.data.pipeline.batches import _live_and_die_with_the_parent as start
def work(): start(0, 1); print(multiprocessing.current_process().pid, flush=True); time.sleep(600)
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=work, daemon=True)
    process.start()
    process.join()
"""
    file = tmp_path / "parent.py"
    file.write_text(program)
    with subprocess.Popen([sys.executable, file], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(child, signal.SIGINT)
        os.kill(child, signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            parent.wait(timeout=1)
        parent.kill()
        parent.stdout.read()  # to its end, which comes when the child, who holds it too, is gone
