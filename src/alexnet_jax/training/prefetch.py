"""Preparation of batches in a thread, ahead of the training steps that read them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")

PREFETCHED_BATCHES = 8
"""Maximum number of batches on the devices, or on their way there, besides those of the steps in progress."""


class Prefetcher(Generic[Item, Prepared]):
    """Iterator over `prepare(item)` for each item, computed in a thread ahead of the consumer.

    At most `size` items are read and not yet consumed. When half of them are consumed, the thread prepares as many in a row: on a
    CPU, each time that it starts costs more than an item, because the training steps displace its code and data from the caches.
    An error of `items` or of `prepare` is raised in the consumer's thread, in place of the item that it belongs to. The order is
    that of `items`.

    Args:
      items: iterator, which only the thread advances from now on.
      prepare: function of an item.
      size: number of items to prepare ahead, at least 1.

    Examples:
      >>> from contextlib import closing
      >>> with closing(Prefetcher(iter("abc"), str.upper, size=2)) as letters:
      ...     list(letters)
      ['A', 'B', 'C']
    """

    def __init__(self, items: Iterator[Item], prepare: Callable[[Item], Prepared], *, size: int = PREFETCHED_BATCHES):
        self._items, self._prepare, self._size = items, prepare, size
        # Queues take a fraction of the time of an executor's futures.
        self._requests: SimpleQueue[int] = SimpleQueue()
        self._results: SimpleQueue[Prepared | _Error] = SimpleQueue()
        self._ahead, self._closed = 0, False
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()
        self._request()

    def _request(self) -> None:
        """Request items until `size` are ahead."""
        self._requests.put(self._size - self._ahead)
        self._ahead = self._size

    def _run(self) -> None:
        """Prepare as many items as are requested, in the thread."""
        while number := self._requests.get():
            for _ in range(number):
                if self._closed:
                    return
                try:
                    self._results.put(self._prepare(next(self._items)))
                except BaseException as error:
                    self._results.put(_Error(error))

    def __iter__(self) -> "Prefetcher[Item, Prepared]":
        return self

    def __next__(self) -> Prepared:
        if self._error is None:
            prepared = self._results.get()
            if not isinstance(prepared, _Error):
                self._ahead -= 1
                if self._ahead <= self._size // 2:
                    self._request()
                return prepared
            self._error = prepared.error
        raise self._error  # again, if another item is asked for

    def close(self) -> None:
        """Wait for the item that is being prepared, end the thread, and close `items` if it has a method `close`."""
        self._closed = True
        self._requests.put(0)
        self._thread.join()
        close = getattr(self._items, "close", None)  # Grain's iterators and generators have it
        if close is not None:
            close()


@dataclass(frozen=True)
class _Error:
    error: BaseException
