"""Unfinished data sets, with support for resuming after an interruption.

A data set is written to a hidden folder beside its final path:

    .NAME.partial/plan            digest of the `PreparePlan`; if the plan has changed, the folder's content is deleted
    .NAME.partial/lock            file lock for which a second process waits
    .NAME.partial/data/           the data set; shards under their final names are complete
    .NAME.partial/reports/        one `ShardReport` per finished shard, merged into the manifest and the mean image at the end

When all shards are finished, `data` is renamed to NAME. Files and folders get their final names by renaming only, so the process
can be killed at any time. The report of a shard is written last; a shard without a report is written again.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgpack
import numpy as np

from alexnet_jax.console import console
from alexnet_jax.data.manifest import Encoding, Manifest, Shard
from alexnet_jax.data.npy_file import array_digest
from alexnet_jax.data.prepare.shard_writer import ShardReport, ShardWriter
from alexnet_jax.data.statistics import PixelStatistics
from alexnet_jax.errors import DISK_FULL_ERRNOS, UserError
from alexnet_jax.files import wait_for_lock


@dataclass(frozen=True)
class PreparePlan:
    """Parameters that determine every byte of a prepared data set.

    Attributes:
      classes: class names, indexed by label.
      size: side of the images, pixels.
      encoding: encoding of an image in a record.
      images: number of source images in each split, including unreadable ones.
      shard_images: number of source images per shard, for each split.
      source: description of the source.
      left_out: files of the source that are not read, with the reason, one line each.
      fingerprint: fingerprint of the source, see `sources.base.Source.fingerprint`.
      versions: versions of the libraries that decode, resize and encode the images.
      display_names: names of the classes to print; empty if there are none besides `classes`.
      unlabeled: splits without labels.
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
    display_names: list[str] = field(default_factory=list)
    unlabeled: list[str] = field(default_factory=list)

    @property
    def statistics_split(self) -> str:
        """Split whose mean image and color components are stored: the train split, or the first one if there is none."""
        return "train" if "train" in self.images or not self.images else next(iter(self.images))

    @property
    def digest(self) -> str:
        """SHA-256 of the plan, in hexadecimal. A partial data set is resumed only if its plan has the same digest."""
        added = ("display_names", "unlabeled")  # data sets without them have the digests of earlier versions
        values = {name: value for name, value in asdict(self).items() if value or name not in added}
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()


class PartialDataset:
    """Unfinished data set in an existing folder. Content that was written with a different plan is deleted."""

    def __init__(self, partial: Path, plan: PreparePlan):
        self._plan = plan
        self._data_dir, self._reports_dir = partial / "data", partial / "reports"
        plan_file = partial / "plan"
        if not plan_file.exists() or plan_file.read_bytes() != plan.digest.encode():
            if self._data_dir.exists():
                console.print("the source or the options changed since the interrupted run: starting over", style="yellow")
            for folder in (self._reports_dir, self._data_dir):  # reports first, so that no report is left without its shard
                if folder.exists():
                    shutil.rmtree(folder)
            plan_file.write_text(plan.digest)
        self._data_dir.mkdir(exist_ok=True)
        self._reports_dir.mkdir(exist_ok=True)

    @contextmanager
    def shard_writer(self, split: str, shard_index: int) -> Iterator[ShardWriter]:
        """Yield the writer of a shard. The shard is finished when the block ends without an exception."""
        writer = ShardWriter(self._data_dir, split, shard_index, self._plan.size, split == self._plan.statistics_split)
        try:
            yield writer
        except BaseException:
            writer.abort()
            raise
        self._write_report(self._reports_dir / f"{split}-{shard_index:05}", writer.finish())

    @staticmethod
    def _write_report(path: Path, report: ShardReport) -> None:
        statistics = report.statistics
        sums = (
            (statistics.num_images, statistics.total.tobytes(), statistics.products.tobytes()) if statistics.num_images else None
        )
        with open(path.with_suffix(".unfinished"), "wb") as file:
            msgpack.pack((report.shard, report.counts, report.skipped, sums), file)
            file.flush()
            os.fsync(file.fileno())
        path.with_suffix(".unfinished").rename(path)

    def read_report(self, split: str, shard_index: int) -> ShardReport | None:
        """Return the report of a shard, or None if the shard is not finished or its report is damaged."""
        path = self._reports_dir / f"{split}-{shard_index:05}"
        if not path.exists():
            return None
        try:
            shard, counts, skipped, sums = msgpack.unpackb(path.read_bytes(), strict_map_key=False)
            statistics = PixelStatistics(self._plan.size)
            if sums:
                statistics.num_images = sums[0]
                statistics.total += np.frombuffer(sums[1], np.int64).reshape(statistics.total.shape)
                statistics.products += np.frombuffer(sums[2], np.int64).reshape(3, 3)
            return ShardReport(Shard(*shard), counts, skipped, statistics)
        except (ValueError, TypeError):
            return None

    def finish(self, path: Path, num_shards: dict[str, int]) -> None:
        """Write the mean image and the manifest, and rename the data set to `path`.

        Raises:
          UserError: if all images of a split, or all training images of a class of the source, were skipped.
        """
        plan = self._plan
        statistics = PixelStatistics(plan.size)
        counts = {split: [0] * len(plan.classes) for split in num_shards if split not in plan.unlabeled}
        files: dict[str, list[Shard]] = {split: [] for split in num_shards}
        skipped_by_split: dict[str, dict[str, str]] = {split: {} for split in num_shards}
        for split, index in ((split, index) for split, count in num_shards.items() for index in range(count)):
            report = self.read_report(split, index)
            assert report is not None
            statistics.merge(report.statistics)
            skipped_by_split[split] |= report.skipped
            if split in counts:
                for label, count in report.counts.items():
                    counts[split][label] += count
            if report.shard.num_images:
                files[split].append(report.shard)
        if not statistics.num_images:
            raise UserError("none of the training images can be read: check the files of the source")
        for split, skipped in skipped_by_split.items():
            if skipped and not files[split]:  # for example, the few images that were held out
                raise UserError(f"no {split} image can be read ({_reasons(skipped)}): replace or remove these images")
        skipped = {name: reason for names in skipped_by_split.values() for name, reason in names.items()}
        self._check_classes(counts, skipped)
        components, mean_image = statistics.color_components(), statistics.mean_image
        np.save(self._data_dir / "mean_image.npy", mean_image)
        manifest = Manifest(
            name=path.name,
            size=plan.size,
            classes=plan.classes,
            splits={split: sum(shard.num_images for shard in shards) for split, shards in files.items() if shards},
            color_deviations=components.deviations.tolist(),
            color_directions=components.directions.tolist(),
            skipped=skipped,
            encoding=plan.encoding,
            counts={split: per_class for split, per_class in counts.items() if any(per_class)},
            shards={split: shards for split, shards in files.items() if shards},
            source=plan.source,
            left_out=plan.left_out,
            plan=plan.digest,
            versions=plan.versions,
            mean_image_sha256=array_digest(mean_image),
            display_names=plan.display_names,
            unlabeled=[split for split in plan.unlabeled if files[split]],
        )
        (self._data_dir / "manifest.json").write_text(manifest.to_json())
        for name in ("mean_image.npy", "manifest.json"):
            with open(self._data_dir / name, "rb") as file:
                os.fsync(file.fileno())
        self._data_dir.rename(path)

    def _check_classes(self, counts: dict[str, list[int]], skipped: dict[str, str]) -> None:
        """Check that every class of a source has an image of the split that defines the classes."""
        plan = self._plan
        split = plan.statistics_split
        if not plan.images or split not in counts:  # written image by image, or without labels
            return
        if empty := [name for name, count in zip(plan.classes, counts[split], strict=True) if not count]:
            problem = f"no {split} image of {', '.join(empty[:5])} can be read ({_reasons(skipped)})"
            raise UserError(f"{problem}: replace the images, or remove the classes")


def _reasons(skipped: dict[str, str]) -> str:
    """Describe the first skipped images."""
    return "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:3])


_PARTIAL_NAMES = {"plan", "lock", "data", "reports"}


@contextmanager
def open_partial_dataset(path: Path, plan: PreparePlan) -> Iterator[PartialDataset]:
    """Lock and yield the partial data set for `path`, and delete its folder when the block ends without an exception.

    After an exception the folder is kept, so that a later call with the same plan can resume. While another process holds the
    lock, this one waits. The other one may have created `path`, so check for it inside the block.

    Raises:
      UserError: if `path` cannot be written, or the disk is full.
    """
    partial = _partial_path(path)
    try:
        with wait_for_lock(partial / "lock", f"another process is preparing {path}: waiting for it to finish"):
            if others := sorted({file.name for file in partial.iterdir()} - _PARTIAL_NAMES):
                raise UserError(f"{partial} contains {others[0]}, which would be deleted: move it, or choose a different folder")
            yield PartialDataset(partial, plan)
            shutil.rmtree(partial)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise UserError(
                f"no space left for {path} ({error.strerror}): free some space and run the same command again"
            ) from error
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose a different folder") from error


def remove_partial_dataset(path: Path) -> None:
    """Delete the partial data set for `path`, if there is one."""
    shutil.rmtree(_partial_path(path), ignore_errors=True)


def _partial_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")
