"""Writing of small prepared data sets image by image, with one shard per split."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from alexnet_jax.data.images import Pixels
from alexnet_jax.data.manifest import Encoding
from alexnet_jax.data.prepare.shard_writer import ShardWriter
from alexnet_jax.data.prepare.shards import PartialDataset, PreparePlan, open_partial_dataset
from alexnet_jax.data.records import Record


class DatasetWriter:
    """Writer of a data set, created by `create_dataset`. Splits can be written in any order."""

    def __init__(self, partial: PartialDataset, stack: ExitStack):
        self._partial, self._stack = partial, stack
        self.shard_writers: dict[str, ShardWriter] = {}

    def write(self, split: str, record: Record, pixels: Pixels) -> None:
        """Write an image to a split; `pixels` is the image before encoding."""
        if split not in self.shard_writers:
            self.shard_writers[split] = self._stack.enter_context(self._partial.shard_writer(split, 0))
        self.shard_writers[split].write(record, pixels)


@contextmanager
def create_dataset(path: Path, classes: list[str], *, size: int, encoding: Encoding = "jpeg") -> Iterator[DatasetWriter]:
    """Yield a writer for a new data set, which appears at `path` when the block ends without an exception."""
    with open_partial_dataset(path, PreparePlan(classes, size, encoding)) as partial:
        with ExitStack() as stack:
            writer = DatasetWriter(partial, stack)
            yield writer
        partial.finish(path, dict.fromkeys(writer.shard_writers, 1))
