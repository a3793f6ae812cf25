"""Lookup of a source by path or `tfds:` name."""

from pathlib import Path

from alexnet_jax.console import console
from alexnet_jax.data.sources import file_tree, layout
from alexnet_jax.data.sources.base import Source
from alexnet_jax.data.sources.cifar import LAYOUTS, cifar_source
from alexnet_jax.data.sources.folders import folder_source
from alexnet_jax.data.sources.held_out import ValidationSplit, hold_out
from alexnet_jax.data.sources.layout import COMPRESSED, EXPECTED_LAYOUT, SUFFIXES
from alexnet_jax.data.sources.parquet import parquet_files, parquet_source
from alexnet_jax.data.sources.tfds import PREFIX, find_tfds_folder, open_tfds_folder, tfds_source
from alexnet_jax.data.sources.webdataset import webdataset_source
from alexnet_jax.data.sources.webdataset_labels import LabelReader
from alexnet_jax.errors import UserError


def find_source(name: str, validation_split: ValidationSplit, tfds_dir: str | None = None, *, testing: bool = False) -> Source:
    """Open the source at a path or with a `tfds:` name. The files at the path determine the type of the source.

    Args:
      name: path of a folder, an archive or a Parquet file, or `tfds:NAME`.
      validation_split: rule that selects validation images in folders without splits, and in the other forms (Parquet,
        WebDataset, TFDS) if they have training images only.
      tfds_dir: data folder of TensorFlow Datasets; None uses its default.
      testing: whether the images are only tested: a folder of images without splits is then one test split, and a folder of
        splits does not need a train split.

    Raises:
      UserError: if the path does not exist or contains no supported source.
    """
    if name.startswith(PREFIX):
        return hold_out(tfds_source(name, tfds_dir, testing=testing), validation_split)
    path = Path(name)
    if path.exists():
        with console.status(f"Listing the images in {path}"):
            if source := cifar_source(path):
                return source
            if path.is_dir() and (folder := find_tfds_folder(path)):
                return hold_out(open_tfds_folder(folder, testing=testing), validation_split)
            if path.is_file() and (files := parquet_files(path)):
                return hold_out(parquet_source(path, files, testing=testing), validation_split)
            if path.is_dir() or file_tree.is_archive(path.name):
                labels = LabelReader(path)
                listing = file_tree.list_files(path, labels.read)
                if source := webdataset_source(path, listing, labels, testing=testing):
                    return hold_out(source, validation_split)
                if (files := parquet_files(path)) and not len(layout.images_and_others(listing.files)[0]):
                    return hold_out(parquet_source(path, files, testing=testing), validation_split)
                return folder_source(path, listing, validation_split, testing=testing)
    archives = ", ".join(layout.archive for layout in LAYOUTS)
    problem = "does not exist: pass"
    suffix = path.suffix.lower()
    if path.exists() and suffix in COMPRESSED:
        decompressed = path.with_suffix("" if path.stem.lower().endswith(".tar") else ".tar")
        if suffix in (".gz", ".tgz"):
            raise UserError(f"{path} is a compressed archive: run gunzip {path}, and pass {decompressed}")
        raise UserError(f"{path} is a compressed archive: unpack it, and pass the folder")
    if path.exists() and suffix in SUFFIXES:
        problem = "is a single image: pass"
    elif path.exists():
        problem = "is not a supported source: pass"
    raise UserError(f"{path} {problem} a folder with {EXPECTED_LAYOUT}, or one of {archives}")
