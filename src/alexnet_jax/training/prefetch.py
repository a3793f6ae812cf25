"""Preparation of batches in a thread, ahead of the training steps that read them."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._ahead: deque[Future[Prepared]] = deque()
        self._submit()

    def _submit(self) -> None:
        """Submit items until `size` are ahead."""
        self._ahead.extend(self._executor.submit(self._prepare_next) for _ in range(self._size - len(self._ahead)))

    def _prepare_next(self) -> Prepared:
        return self._prepare(next(self._items))

    def __iter__(self) -> "Prefetcher[Item, Prepared]":
        return self

    def __next__(self) -> Prepared:
        prepared = self._ahead[0].result()  # raises the error of this item, and again if it is asked for again
        self._ahead.popleft()
        if len(self._ahead) <= self._size // 2:
            self._submit()
        return prepared

    def close(self) -> None:
        """Wait for the item that is being prepared, end the thread, and close `items` if it has a method `close`."""
        self._executor.shutdown(cancel_futures=True)
        self._ahead.clear()
        close = getattr(self._items, "close", None)  # Grain's iterators and generators have it
        if close is not None:
            close()
