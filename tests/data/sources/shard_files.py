"""Small data sets in the forms in which images are published in shards: Parquet, WebDataset and TensorFlow Datasets.

The same pictures, from `make_pictures`, are written as folders, by pyarrow, by webdataset, and in the format of TFDS.
"""

import io
import json
import struct

import numpy as np
import pytest
from PIL import Image

from tests.data.sources.archives import WNIDS, write_files

UNLABELED = -1


def make_pictures():
    """Return images by split, as lists of label, file name and content; those of the test split have no label."""
    rng = np.random.default_rng(0)

    def picture(kind):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(file, kind)
        return file.getvalue()

    pictures = {
        "train": [(label, f"{WNIDS[label]}_{i}.JPEG", picture("JPEG")) for i in range(4) for label in range(3)],
        "validation": [(label, f"ILSVRC2012_val_{label + 1:08}.JPEG", picture("JPEG")) for label in (2, 0, 1)],
        "test": [(UNLABELED, f"ILSVRC2012_test_{i:08}.JPEG", picture("JPEG")) for i in (1, 2, 3)],
    }
    pictures["train"].append((0, f"{WNIDS[0]}_9.JPEG", picture("PNG")))  # as in ILSVRC, a PNG with the name of a JPEG
    return pictures


PICTURES = make_pictures()
LABELED = {split: images for split, images in PICTURES.items() if split != "test"}


def write_folders(root, pictures=PICTURES):
    return write_files(
        root,
        {
            f"{split}/{WNIDS[label] + '/' if label >= 0 else ''}{name}": data
            for split, images in pictures.items()
            for label, name, data in images
        },
    )


def parquet_table(images, names=tuple(WNIDS), metadata=True, label_type="int64"):
    """Return a table with the columns and the metadata that the `datasets` library of Hugging Face writes."""
    pa = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    rows = [{"bytes": data, "path": name} for _, name, data in images]
    image = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    label = pa.array([label for label, _, _ in images], pa.type_for_alias(label_type))
    table = pa.table({"image": image, "label": label})
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})} if metadata else None)


def write_parquet(root, pictures=PICTURES, *, shards=2, **options):
    pq = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
    (root / "data").mkdir(parents=True)
    for split, images in pictures.items():
        for shard in range(shards):
            table = parquet_table(images[shard::shards], **options)
            pq.write_table(table, root / "data" / f"{split}-{shard:05}-of-{shards:05}.parquet", row_group_size=2)
    return root


def write_webdataset(root, pictures=PICTURES, *, shards=2):
    wds = pytest.importorskip("webdataset", reason="webdataset is not installed")
    root.mkdir(parents=True)
    for split, images in pictures.items():
        for shard in range(shards):
            with wds.TarWriter(str(root / f"imagenet1k-{split}-{shard:04}.tar")) as writer:
                for label, name, data in images[shard::shards]:
                    key, extension = name.split(".")
                    labels = {} if label == UNLABELED else {"cls": label, "json": {"label": label, "filename": name}}
                    writer.write({"__key__": key, extension: data, **labels})
    return root


def write_tfds(root, pictures=PICTURES, *, file_format="tfrecord", shards=2):
    """Write the files of TFDS for a data set like its imagenet2012."""
    folder = root / "tiny" / "1.0.0"
    folder.mkdir(parents=True)
    splits = []
    for split, images in pictures.items():
        lengths = []
        for shard in range(shards):
            records = [example(image=data, label=label, file_name=name.encode()) for label, name, data in images[shard::shards]]
            lengths.append(str(len(records)))
            path = folder / f"tiny-{split}.{file_format}-{shard:05}-of-{shards:05}"
            (write_tfrecord if file_format == "tfrecord" else write_array_record)(path, records)
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        splits.append({"filepathTemplate": template, "name": split, "numBytes": "1", "shardLengths": lengths})
    info = {"fileFormat": file_format, "name": "tiny", "version": "1.0.0", "splits": splits}
    package = "tensorflow_datasets.core.features"
    image = {"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint8", "encodingFormat": "jpeg"}
    features = {
        "image": {"pythonClassName": f"{package}.image_feature.Image", "image": image},
        "label": {"pythonClassName": f"{package}.class_label_feature.ClassLabel", "classLabel": {"numClasses": "3"}},
        "file_name": {"pythonClassName": f"{package}.text_feature.Text", "text": {}},
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": features}}))
    (folder / "label.labels.txt").write_text("\n".join(WNIDS) + "\n")
    return folder


def example(**features):
    """Return a tf.train.Example, serialized by hand."""
    message = b""
    for name, value in features.items():
        values = field(1, field(1, value)) if isinstance(value, bytes) else field(3, field(1, varint(value % 2**64)))
        message += field(1, field(1, name.encode()) + field(2, values))
    return field(1, message)


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(number):
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def write_tfrecord(path, records):
    with open(path, "wb") as file:
        for record in records:
            length = struct.pack("<Q", len(record))
            file.write(length + masked_crc(length) + record + masked_crc(record))


def masked_crc(data):
    """Return the checksum of TFRecord, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)


def write_array_record(path, records):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
