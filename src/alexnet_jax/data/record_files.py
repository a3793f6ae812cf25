"""Random access to the records of ArrayRecord files."""

import threading
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgpack
from array_record.python.array_record_module import ArrayRecordReader

OPTIONS = "readahead_buffer_size:0"
"""Reader options for random access."""
BUFFER_BYTES = 1 << 15
"""Size of the read buffer of each open file."""
_IMAGE_KEY = b"\x83\xa5image"
"""Beginning of a record in MessagePack: a map with three entries, of which the image is the first."""
_MAP_OF_TWO = b"\x82"
_LENGTH_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
"""Number of bytes of the length of binary data in MessagePack, by type."""


def unpack_image(data: bytes) -> tuple[memoryview, int]:
    """Return the image and the label of a record, as `records.unpack` does, but without a copy of the image.

    Raises:
      Exception: of many types, if the record is damaged.
    """
    if not data.startswith(_IMAGE_KEY):
        raise ValueError("not a record")
    start = len(_IMAGE_KEY) + 1 + _LENGTH_BYTES[data[len(_IMAGE_KEY)]]
    end = start + int.from_bytes(data[len(_IMAGE_KEY) + 1 : start])
    return memoryview(data)[start:end], msgpack.unpackb(_MAP_OF_TWO + data[end:])["label"]


class RecordFiles:
    """Serialized records of several files, read on access. An instance can be shared by threads and pickled.

    `grain.sources.ArrayRecordDataSource` is not used, for two reasons: it opens every file to count the records, which are
    already known, and it reads a record in a time proportional to the number of records in its file.
    """

    def __init__(self, paths: Sequence[str], sizes: Sequence[int]):
        self._paths = paths
        self._starts = [0, *accumulate(sizes)]
        self._readers: list[ArrayRecordReader | None] = [None] * len(self._paths)  # opened on first access
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> bytes:
        """Read the record at `index`, which is at least 0.

        Raises:
          Exception: of many types, if the file is damaged.
        """
        file = bisect_right(self._starts, index) - 1
        reader = self._readers[file] or self._reader(file)
        position = index - self._starts[file]
        # Reading a range of records takes the same time in files of all lengths, which reading a list of records does not.
        return reader.read(position, position + 1)[0]

    def path_of(self, index: int) -> str:
        """Return the path of the file that contains a record."""
        return self._paths[bisect_right(self._starts, index) - 1]

    def _reader(self, file: int) -> ArrayRecordReader:
        with self._lock:
            reader = self._readers[file]
            if reader is None:
                reader = ArrayRecordReader(self._paths[file], options=OPTIONS, file_reader_buffer_size=BUFFER_BYTES)
                expected = self._starts[file + 1] - self._starts[file]
                if reader.num_records() != expected:
                    raise ValueError(
                        f"{Path(self._paths[file]).name} has {reader.num_records():,} records, expected {expected:,}"
                    )
                self._readers[file] = reader
            return reader

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_readers": [None] * len(self._paths), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())
