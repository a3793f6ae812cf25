"""Small versions of ImageNet's archives, and functions that write and read sources."""

import gzip
import io
import tarfile

import numpy as np
from PIL import Image
from scipy.io import savemat

from alexnet_jax.data.sources.held_out import ValidationSplit
from alexnet_jax.data.sources.registry import find_source

WNIDS = ["n01440764", "n01443537", "n02012849"]


def png_image(number):
    """Return a PNG whose pixels encode the number."""
    file = io.BytesIO()
    Image.new("RGB", (20, 16), (number % 256, number // 256, 7)).save(file, "PNG")
    return file.getvalue()


def make_tar(files, format=tarfile.DEFAULT_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def make_tar_gz(files):
    return gzip.compress(make_tar(files))


def write_files(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return root


def open_source(path, **kwargs):
    return find_source(str(path), ValidationSplit(**kwargs))


def read_all(source):
    """Return the class name, which is empty without a label, file name and bytes of every image, by split."""
    return {
        split: [
            ("" if label < 0 else source.classes[label], name.split("/")[-1], data)
            for name, label, data in (source.read(split, index) for index in range(num_images))
        ]
        for split, num_images in source.num_images.items()
    }


TRAIN = {wnid: {f"{wnid}_{i}.JPEG": png_image(10 * k + i) for i in (2, 10)} for k, wnid in enumerate(WNIDS)}
# Labels by image number, in the order of the archives, which differs from the order of the numbers.
VALIDATION = {4: WNIDS[1], 1: WNIDS[2], 3: WNIDS[0], 2: WNIDS[2]}
EXPECTED = {
    "train": sorted((wnid, name, data) for wnid, files in TRAIN.items() for name, data in files.items()),
    "validation": sorted((wnid, f"ILSVRC2012_val_{i:08}.JPEG", png_image(100 + i)) for i, wnid in VALIDATION.items()),
}


def validation_files(folder=""):
    return {f"{folder}ILSVRC2012_val_{i:08}.JPEG": png_image(100 + i) for i in VALIDATION}


def devkit(year=2012, *, split="validation", words=None):
    """Return the files of a development kit in which classes are not sorted by name and one synset is a group.

    Args:
      year: year of the contest.
      split: split of the labels.
      words: synonyms of each class and of the group; None leaves them out.
    """
    order = [WNIDS[2], WNIDS[0], WNIDS[1]]
    names = (f"ILSVRC{year}_ID", "WNID", "num_children", *(["words"] if words else []))
    synsets = np.empty((4, 1), [(name, "O") for name in names])
    for i, wnid in enumerate([*order, "n00000001"]):
        row = (np.array([[i + 1]], np.uint16), wnid, np.array([[3 if i == 3 else 0]], np.uint8))
        synsets[i, 0] = (*row, words[i]) if words else row
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets}, do_compression=True)
    truth = "".join(f"{order.index(VALIDATION[i]) + 1}\n" for i in sorted(VALIDATION))
    return {"data/meta.mat": meta.getvalue(), f"data/ILSVRC{year}_{split}_ground_truth.txt": truth.encode()}


def ilsvrc_archives():
    """Return small versions of the archives of ILSVRC-2012."""
    return {
        "ILSVRC2012_img_train.tar": make_tar({f"{wnid}.tar": make_tar(files) for wnid, files in TRAIN.items()}),
        "ILSVRC2012_img_val.tar": make_tar(validation_files()),
    }


LABEL_FILES = {
    "classes": {"imagenet_2012_validation_synset_labels.txt": "".join(f"{VALIDATION[i]}\n" for i in sorted(VALIDATION))},
    "caffe": {"val.txt": "".join(f"ILSVRC2012_val_{i:08}.JPEG {WNIDS.index(wnid)}\n" for i, wnid in VALIDATION.items())},
    "kaggle": {
        "LOC_val_solution.csv": "ImageId,PredictionString\n"
        + "".join(f"ILSVRC2012_val_{i:08},{wnid} 1 2 3 4 {wnid} 5 6 7 8 \n" for i, wnid in VALIDATION.items())
    },
    "development kit": {
        "ILSVRC2012_devkit_t12.tar.gz": make_tar_gz({f"ILSVRC2012_devkit_t12/{name}": data for name, data in devkit().items()})
    },
    "unpacked development kit": {f"ILSVRC2012_devkit_t12/{name}": data for name, data in devkit().items()},
}
EXTRACTED = {f"train/{wnid}/{name}": data for wnid, files in TRAIN.items() for name, data in files.items()}


def truncate(data, fraction):
    return data[: int(len(data) * fraction)]


def flip_bit(data, byte):
    return data[:byte] + bytes([data[byte] ^ 0x40]) + data[byte + 1 :]
