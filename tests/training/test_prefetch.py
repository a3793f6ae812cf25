"""Tests that batches are prepared ahead in a thread: order, bound, errors, end of the thread, and exact resumption."""

import os
import threading
import time
from contextlib import closing, nullcontext
from dataclasses import replace

import jax
import numpy as np
import pytest

import alexnet_jax.training.loop
import alexnet_jax.training.setup
from alexnet_jax.errors import UserError
from alexnet_jax.training.checkpoint_reader import read_metadata
from alexnet_jax.training.prefetch import PREFETCHED_BATCHES, Prefetcher
from alexnet_jax.training.train import train
from tests.conftest import TINY_CONFIG, StopAfter

LOADING_THREADS = ("prefetch", "grain-prefetch")


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return True


def loading_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(LOADING_THREADS)]


class Counted:
    """Iterator over the items of another one that counts how many were read.

    Attributes:
      reads: number of items that were asked for.
      error: error that is raised in place of the item `error_at`, counted from 1.
    """

    def __init__(self, items, error_at=None, error=None):
        self._items, self._error_at, self.error, self.reads = items, error_at, error, 0

    def __iter__(self):
        return self

    def __next__(self):
        self.reads += 1
        if self.reads == self._error_at:
            assert self.error is not None
            raise self.error
        return next(self._items)

    def close(self):
        getattr(self._items, "close", lambda: None)()


@pytest.fixture
def stream(monkeypatch):
    """Function that replaces the stream of a training by a `Counted` with given arguments, and returns a list of it."""

    def replace_batches(**arguments):
        streams, batches = [], alexnet_jax.training.loop._batches

        def counted(*args):
            streams.append(Counted(batches(*args), **arguments))
            return streams[-1]

        monkeypatch.setattr(alexnet_jax.training.loop, "_batches", counted)
        return streams

    return replace_batches


@pytest.mark.parametrize("size", [1, 3])
def test_items_are_in_order_and_their_number_ahead_is_bounded(size):
    items = Counted(iter(range(20)))
    with closing(Prefetcher(items, lambda x: (x, threading.current_thread().name), size=size)) as prefetcher:
        for consumed, (item, thread) in enumerate(prefetcher, 1):
            assert item == consumed - 1
            assert thread.startswith("prefetch")
            wait_until(lambda expected=consumed + size // 2 + 1: items.reads >= min(20, expected))
            time.sleep(0.001)
            assert items.reads <= consumed + size
    assert not [name for name in loading_threads() if name == "prefetch"]


def test_items_are_prepared_when_half_of_them_are_consumed():
    items = Counted(iter(range(20)))
    with closing(Prefetcher(items, lambda x: x, size=6)) as prefetcher:
        for expected in (6, 6, 9, 9, 9, 12):
            next(prefetcher)
            wait_until(lambda expected=expected: items.reads >= expected)
            time.sleep(0.001)
            assert items.reads == expected


@pytest.mark.parametrize("in_items", [True, False])
def test_error_is_raised_in_place_of_its_item(in_items):
    error = UserError("shard 3 is damaged")

    def prepare(item):
        if item == 2 and not in_items:
            raise error
        return item

    items = Counted(iter(range(9)), error_at=3 if in_items else None, error=error)
    with closing(Prefetcher(items, prepare, size=4)) as prefetcher:
        assert [next(prefetcher), next(prefetcher)] == [0, 1]
        for _ in range(2):
            with pytest.raises(UserError) as raised:
                next(prefetcher)
            assert raised.value is error


def test_close_ends_the_thread_while_it_waits_for_an_item():
    """The thread ends with the item that it is reading; further items are not read."""
    proceed = threading.Event()

    def slow():
        for item in range(9):
            assert proceed.wait(30)
            yield item

    items = Counted(slow())
    prefetcher = Prefetcher(items, lambda x: x, size=3)
    wait_until(lambda: items.reads == 1)
    threading.Timer(0.05, proceed.set).start()
    prefetcher.close()
    assert items.reads == 1
    assert not [name for name in loading_threads() if name == "prefetch"]


def test_training_reads_a_bounded_number_of_batches_ahead(options, stream):
    streams, ahead = stream(), []

    def step_done():
        steps = len(ahead) + 1
        wait_until(lambda: streams[0].reads > steps + PREFETCHED_BATCHES // 2)
        time.sleep(0.001)
        ahead.append(streams[0].reads - steps)
        return steps == 5

    train("tiny", replace(TINY_CONFIG, epochs=1), options, should_stop=step_done)
    assert max(ahead) <= PREFETCHED_BATCHES


class InterruptAfter(StopAfter):
    """Value of `should_stop` that raises KeyboardInterrupt at the n-th call, as a second Ctrl-C does."""

    def __call__(self):
        if super().__call__():
            raise KeyboardInterrupt
        return False


@pytest.mark.parametrize("end", ["finished", "stopped", "reader", "diverged", "interrupted"])
def test_no_thread_is_left_after_training(end, options, stream):
    config, should_stop, outcome = replace(TINY_CONFIG, epochs=1), StopAfter(1000), nullcontext()
    if end == "stopped":
        should_stop = StopAfter(3)
    elif end == "reader":
        stream(error_at=5, error=UserError("train-00001 is damaged at image 7"))
        outcome = pytest.raises(UserError, match=r"^train-00001 is damaged at image 7$")
    elif end == "diverged":
        config, outcome = replace(config, learning_rate=1e30), pytest.raises(UserError, match="the training loss is")
    elif end == "interrupted":
        should_stop, outcome = InterruptAfter(3), pytest.raises(KeyboardInterrupt)
    with outcome:
        train("tiny", config, options, should_stop=should_stop)
    assert not [name for name in loading_threads() if name == "prefetch"]
    wait_until(lambda: not loading_threads())  # Grain's threads end after the batches that they are loading


def test_resumed_run_trains_on_the_batches_that_were_not_trained_on(options, stream, monkeypatch):
    """Stop twice while batches are prefetched; every batch is trained on once, and the parameters are the same, bit for bit."""
    trained_on, make_train_step = [], alexnet_jax.training.setup.make_train_step

    def make(*args, **kwargs):
        step = make_train_step(*args, **kwargs)

        def recording_step(state, batch, *rest):
            trained_on.append(np.asarray(jax.device_get(batch.image)).tobytes())
            return step(state, batch, *rest)

        return recording_step

    monkeypatch.setattr(alexnet_jax.training.setup, "make_train_step", make)
    streams, config = stream(), replace(TINY_CONFIG, epochs=2)
    uninterrupted = train("tiny", config, options).run
    expected, trained_on = trained_on, []
    assert len(set(expected)) == len(expected) == 20
    options = replace(options, runs_dir=options.runs_dir.parent / "interrupted", loss_delay=3)
    for calls, step in ((4, 4), (3, 7)):
        stop = StopAfter(calls)

        def stop_ahead(stop=stop):
            return stop() and wait_until(lambda: streams[-1].reads >= PREFETCHED_BATCHES)

        assert train("tiny", config, options, should_stop=stop_ahead).step == len(trained_on) == step
    resumed = train("tiny", config, options).run
    assert trained_on == expected
    assert "20" in os.listdir(resumed / "checkpoints")
    checksums = [read_metadata(run / "checkpoints" / "20")[0]["checksums"] for run in (uninterrupted, resumed)]
    assert checksums[0] == checksums[1]
