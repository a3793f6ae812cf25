"""Photos that are prepared in several small shards."""

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.prepare import convert
from alexnet_jax.data.prepare.convert import PrepareOptions, prepare_path

OPTIONS = PrepareOptions(size=16)


@pytest.fixture
def eight_images_per_shard(monkeypatch):
    monkeypatch.setattr(convert, "MIN_SHARD_IMAGES", 8)


@pytest.fixture(scope="module")
def sharded_photos(tmp_path_factory):
    """Folder of 30 training and 10 validation images for 4 and 2 shards; one training image is unreadable."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, images in (("train", 15), ("val", 5)):
        for name in ("cat", "dog"):
            for i in range(images):
                path = root / split / name / f"{i:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (18, 20, 3), np.uint8)).save(path)
    (root / "train" / "dog" / "03.png").write_bytes(b"not an image")
    return root


@pytest.fixture
def prepared(sharded_photos, eight_images_per_shard, tmp_path):
    return prepare_path(sharded_photos, tmp_path / "out", OPTIONS).path
