"""Writing a prepared data set, a shard at a time, so that work that was broken off can go on.

    .NAME.partial/plan            what is being made of what; work by another plan is thrown away
    .NAME.partial/data/           the data set so far: shards under their final names are complete
    .NAME.partial/reports/        what a finished shard adds to the manifest and the mean image

At the end `data` is renamed to NAME. Every name appears by a rename of something complete, so the process may die at any
moment; a shard's report comes last and makes it count.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgpack
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from jaxtyping import Int64

from alexnet_jax.console import console
from alexnet_jax.data.images import Pixels
from alexnet_jax.data.records import Encoding, Manifest, Record, Shard, pack
from alexnet_jax.data.statistics import PixelStatistics
from alexnet_jax.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Plan:
    """All that decides what the finished data set is, byte for byte; its fields are those of `records.Manifest`.

    Attributes:
      images: pictures of each split of the source, the unreadable ones too.
      shard_images: how many of them make a shard.
      fingerprint: of the source.
      versions: of the libraries that make the pixels.
    """

    classes: list[str]
    size: int
    encoding: Encoding = "jpeg"
    images: dict[str, int] = field(default_factory=dict)
    shard_images: dict[str, int] = field(default_factory=dict)
    source: str = ""
    left_out: list[str] = field(default_factory=list)
    fingerprint: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of the plan, hexadecimal: work begun by another plan does not go on."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()


class ShardReport(NamedTuple):
    """What one shard adds to the whole: its images by class, what was skipped, and sums over its pixels if it is for training."""

    shard: Shard
    counts: dict[int, int]
    skipped: dict[str, str]
    statistics: PixelStatistics


class ShardWriter:
    """Receives the images of one shard; `finish` gives the file its name."""

    def __init__(self, folder: Path, split: str, number: int, size: int):
        self._path = folder / f"{split}-{number:05}.array_record"
        self._unfinished = self._path.with_suffix(".unfinished")
        # Groups of one record are what random access wants; JPEG does not compress further.
        self._writer = ArrayRecordWriter(str(self._unfinished), "group_size:1,uncompressed")
        self._training = split == "train"
        self._counts: dict[int, int] = {}
        self._skipped: dict[str, str] = {}
        self._statistics = PixelStatistics(size)

    def write(self, record: Record, pixels: Pixels, products: Int64[np.ndarray, "3 3"] | None = None) -> None:
        """Adds an image; `pixels` are what it was encoded from and `products` their `color_products`, if at hand."""
        with _system_errors():
            self._writer.write(pack(record))
        self._counts[record.label] = self._counts.get(record.label, 0) + 1
        if self._training:
            self._statistics.add(pixels, products)

    def skip(self, name: str, why: str) -> None:
        """Notes that the picture of this name is left out, and why."""
        self._skipped[name] = why

    def finish(self) -> ShardReport:
        """Puts the shard in its place, on the disk for good.

        Raises:
          OSError: the system's, if the disk is full.
        """
        with _system_errors():
            self._writer.close()
        with open(self._unfinished, "rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
        if self._counts:
            self._unfinished.rename(self._path)
        else:
            self._unfinished.unlink()  # all were skipped
        shard = Shard(self._path.name, sum(self._counts.values()), size, digest)
        return ShardReport(shard, self._counts, self._skipped, self._statistics)

    def abandon(self) -> None:
        """Closes the file and leaves it unfinished."""
        with suppress(RuntimeError):  # what is the matter has been said
            self._writer.close()


class Work:
    """A data set in the making, in the folder `partial`."""

    def __init__(self, partial: Path, plan: Plan):
        """Keeps what was done by the same plan, and nothing else."""
        self._plan = plan
        self._data, self._reports = partial / "data", partial / "reports"
        file = partial / "plan"
        if not file.exists() or file.read_text() != plan.digest:
            if self._data.exists():
                console.print("the source or the settings have changed since this was begun: starting anew", style="yellow")
            for folder in (self._reports, self._data):  # in this order: no report without its shard
                if folder.exists():
                    shutil.rmtree(folder)
            file.write_text(plan.digest)
        self._data.mkdir(exist_ok=True)
        self._reports.mkdir(exist_ok=True)

    @contextmanager
    def shard(self, split: str, number: int) -> Iterator[ShardWriter]:
        """A writer whose shard counts once the block has ended well."""
        writer = ShardWriter(self._data, split, number, self._plan.size)
        try:
            yield writer
        except BaseException:
            writer.abandon()
            raise
        self._save(self._reports / f"{split}-{number:05}", writer.finish())

    @staticmethod
    def _save(path: Path, report: ShardReport) -> None:
        statistics = report.statistics
        sums = (statistics.images, statistics.total.tobytes(), statistics.products.tobytes()) if statistics.images else None
        with open(path.with_suffix(".unfinished"), "wb") as file:
            msgpack.pack((report.shard, report.counts, report.skipped, sums), file)
            file.flush()
            os.fsync(file.fileno())
        path.with_suffix(".unfinished").rename(path)

    def report(self, split: str, number: int) -> ShardReport | None:
        """The report of a shard, if it is finished."""
        path = self._reports / f"{split}-{number:05}"
        if not path.exists():
            return None
        shard, counts, skipped, sums = msgpack.unpackb(path.read_bytes(), strict_map_key=False)
        statistics = PixelStatistics(self._plan.size)
        if sums:
            statistics.images = sums[0]
            statistics.total += np.frombuffer(sums[1], np.int64).reshape(statistics.total.shape)
            statistics.products += np.frombuffer(sums[2], np.int64).reshape(3, 3)
        return ShardReport(Shard(*shard), counts, skipped, statistics)

    def finish(self, path: Path, shards: dict[str, int]) -> None:
        """Writes the mean image and the manifest of so many shards of each split, and gives the data set its name."""
        plan = self._plan
        statistics = PixelStatistics(plan.size)
        counts = {split: [0] * len(plan.classes) for split in shards}
        files: dict[str, list[Shard]] = {split: [] for split in shards}
        skipped: dict[str, str] = {}
        for split, number in ((split, number) for split, count in shards.items() for number in range(count)):
            report = self.report(split, number)
            assert report is not None
            statistics.merge(report.statistics)
            skipped |= report.skipped
            for label, images in report.counts.items():
                counts[split][label] += images
            if report.shard.images:
                files[split].append(report.shard)
        if not statistics.images:
            raise UserError("none of the training images can be read")
        components = statistics.color_components()
        np.save(self._data / "mean_image.npy", statistics.mean_image)
        manifest = Manifest(
            name=path.name,
            size=plan.size,
            classes=plan.classes,
            splits={split: sum(images) for split, images in counts.items() if any(images)},
            color_deviations=components.deviations.tolist(),
            color_directions=components.directions.tolist(),
            skipped=skipped,
            encoding=plan.encoding,
            counts={split: images for split, images in counts.items() if any(images)},
            shards={split: found for split, found in files.items() if found},
            source=plan.source,
            left_out=plan.left_out,
            plan=plan.digest,
            versions=plan.versions,
        )
        (self._data / "manifest.json").write_text(manifest.to_json())
        for name in ("mean_image.npy", "manifest.json"):
            with open(self._data / name, "rb") as file:
                os.fsync(file.fileno())
        self._data.rename(path)


@contextmanager
def working_on(path: Path, plan: Plan) -> Iterator[Work]:
    """What has been done of the data set at `path` by this plan; if the block fails, it stays for the next time.

    Raises:
      UserError: if `path` cannot be written to, the disk is full, or another process is making the same data set.
    """
    partial = _partial(path)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with open(partial / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however it ends
            except BlockingIOError:
                raise UserError(f"another process is preparing {path}: wait for it") from None
            yield Work(partial, plan)
            shutil.rmtree(partial)
    except OSError as error:
        if error.errno in FULL:
            raise UserError(f"no room left for {path} ({error.strerror}): make some and run this again to go on") from error
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def _system_errors() -> Iterator[None]:
    """ArrayRecord's own errors as those of the system that are behind them."""
    try:
        yield
    except RuntimeError as error:
        for number in FULL:
            if os.strerror(number) in str(error):
                raise OSError(number, os.strerror(number)) from error
        raise OSError(errno.EIO, " ".join(str(error).split())) from error


class DatasetWriter:
    """Receives the images of a data set that a program makes, splits in any order."""

    def __init__(self, work: Work, stack: ExitStack):
        self._work, self._stack = work, stack
        self._shards: dict[str, ShardWriter] = {}

    def write(self, split: str, record: Record, pixels: Pixels) -> None:
        """Adds an image to a split; `pixels` are what it was encoded from."""
        if split not in self._shards:
            self._shards[split] = self._stack.enter_context(self._work.shard(split, 0))
        self._shards[split].write(record, pixels)

    @property
    def splits(self) -> list[str]:
        """Those that have images so far."""
        return list(self._shards)


@contextmanager
def new_dataset(path: Path, classes: list[str], *, size: int, encoding: Encoding = "jpeg") -> Iterator[DatasetWriter]:
    """A writer of a data set, one shard a split, that takes its place at `path` only if the block ends well.

    Raises:
      UserError: if `path` exists or cannot be written to, or the disk is full.
    """
    if path.exists():
        raise UserError(f"{path} exists: choose another folder, or delete it")
    try:
        with working_on(path, Plan(classes, size, encoding)) as work:
            with ExitStack() as stack:
                writer = DatasetWriter(work, stack)
                yield writer
            work.finish(path, dict.fromkeys(writer.splits, 1))
    except BaseException:
        forget_work(path)
        raise


def forget_work(path: Path) -> None:
    """Removes what is left of making the data set at `path`."""
    shutil.rmtree(_partial(path), ignore_errors=True)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")
