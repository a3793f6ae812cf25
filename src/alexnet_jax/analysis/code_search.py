"""Search of an index by binary codes, then by exact distances (paper, section 6.1).

The images whose codes have the smallest Hamming distances from that of the query are the candidates. Their features are read from
the index, and their exact Euclidean distances determine the neighbors. Krizhevsky and Hinton, Using Very Deep Autoencoders for
Content-Based Image Retrieval (ESANN 2011), rank images by the Hamming distance of codes of 256 bits; the exact distances after it
are an addition.

The codes of an index and the encoder for queries are in one file, codes.safetensors. Its metadata are `layout` and `format`, a
digest of index.json as `index`, and a `checksum` of the tensors.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from alexnet_jax.analysis.binary_codes import Autoencoder, Codes, PerceptronEncoder, nearest_codes
from alexnet_jax.analysis.exact_search import Neighbors, nearest_neighbors
from alexnet_jax.analysis.index import Features, Index
from alexnet_jax.console import console, track_progress
from alexnet_jax.errors import UserError, check_number
from alexnet_jax.files import lock_file
from alexnet_jax.model.tower import params_digest
from alexnet_jax.weights.safetensors_file import read_tensors, write_tensors

FILE = "codes.safetensors"
LAYOUT = "alexnet-jax codes"
FORMAT = "1"
"""Version of the format."""
TRAINING_IMAGES = 20_000
"""Maximum number of images that an autoencoder is trained on: 328 MB for 4,096 features."""
AUTOENCODER = Autoencoder(steps=1000)
"""Autoencoder that is trained by default. Its training takes about a minute for 4,096 features on two CPU cores."""
CANDIDATES = 2000
"""Number of images per query whose exact distances are computed."""
ROWS_READ = 4096
"""Number of images whose features are read at a time."""
MAX_BITS = 4096


@dataclass(frozen=True)
class IndexCodes:
    """Binary codes of the images of an index, in its order, and the encoder of the features of queries."""

    encoder: PerceptronEncoder
    codes: Codes


def search_index(
    index: Index, codes: IndexCodes | None, queries: Features, count: int, candidates: int = CANDIDATES
) -> Neighbors:
    """Return the images of an index nearest to each query, by `search_by_codes`, or exactly if `codes` is None."""
    if codes is None:
        return index.search(queries, count)
    return search_by_codes(index, codes, queries, count, candidates)


def search_by_codes(index: Index, codes: IndexCodes, queries: Features, count: int, candidates: int = CANDIDATES) -> Neighbors:
    """Return the nearest of the images whose codes are nearest to those of each query.

    Args:
      index: index to search.
      codes: codes of its images.
      queries: features to search for.
      count: number of neighbors per query; all images are returned if there are fewer.
      candidates: number of images per query whose exact distances are computed, or `count` if that is more. With all images of
        the index, the result equals that of `Index.search`.
    """
    indices = np.empty((len(queries), min(count, len(codes.codes))), np.int64)
    distances = np.empty(indices.shape)
    for number, query in enumerate(codes.encoder(queries)):
        images = np.sort(nearest_codes(query[None], codes.codes, max(candidates, count))[0])  # so ties are ordered by index
        blocks = (index.rows(images[start : start + ROWS_READ]) for start in range(0, len(images), ROWS_READ))
        neighbors = nearest_neighbors(queries[number : number + 1], blocks, count, index.norms(images))
        indices[number], distances[number] = images[neighbors.indices[0]], neighbors.distances[0]
    return Neighbors(indices, distances)


def build_codes(index: Index, bits: int, autoencoder: Autoencoder | None = None) -> IndexCodes:
    """Train an autoencoder, encode the images of an index, and store the codes and the encoder in the folder of the index.

    The features are read in blocks. If the index has codes of the same length, they are only read; other codes are replaced
    when the new ones are complete.

    Args:
      index: index to encode.
      bits: number of bits of a code: a multiple of 8; a multiple of 64 is fastest to search.
      autoencoder: autoencoder to train, on at most `TRAINING_IMAGES` random images, drawn with its seed; None uses `AUTOENCODER`.

    Raises:
      UserError: if `bits` is invalid, another process is building codes of the same index, or the disk is full.
    """
    check_bits(bits)
    file = index.path / FILE
    with lock_file(index.path / "index.json", f"another process is building {file}: wait until it is finished"):
        try:
            existing = read_codes(index)
        except UserError as error:
            console.print(f"{error}; building them again", style="yellow")
            existing = None
        if existing is not None and existing.encoder.bits == bits:
            console.print(f"{file} is already complete")
            return existing
        autoencoder = autoencoder or AUTOENCODER
        images, rng = index.metadata.images, np.random.default_rng(autoencoder.seed)
        sample = np.sort(rng.choice(images, min(TRAINING_IMAGES, images), replace=False))
        encoder = autoencoder.train(index.rows(sample), bits)
        codes = np.empty((images, bits // 8), np.uint8)
        first = 0
        for block in track_progress(index.blocks(), "Encoding", index.num_blocks, "block"):
            codes[first : first + len(block)] = encoder(block)
            first += len(block)
        tensors = {**encoder.tensors, "codes": codes}
        metadata = {"layout": LAYOUT, "format": FORMAT, "index": _index_digest(index), "checksum": params_digest(tensors)}
        write_tensors(file, tensors, {}, **metadata)
    return IndexCodes(encoder, codes)


def check_bits(bits: int) -> None:
    """Check the number of bits of a code.

    Raises:
      UserError: if it is invalid.
    """
    check_number("--bits", bits, at_least=8, at_most=MAX_BITS)
    if bits % 8:
        raise UserError(f"--bits must be a multiple of 8, not {bits}")


def read_codes(index: Index) -> IndexCodes | None:
    """Read the codes of an index and the encoder for queries, or return None if the index has none.

    Raises:
      UserError: if the file is damaged, or belongs to another index or another version of the format.
    """
    file = index.path / FILE
    if not file.exists():
        return None
    advice = "delete it, or build the codes again with alexnet-jax index and --bits"
    tensors, metadata = read_tensors(file, advice)
    if metadata.get("layout") != LAYOUT:
        raise UserError(f"{file} contains no codes of an index: {advice}")
    if (version := metadata.get("format", "")) != FORMAT:
        raise UserError(f"{file} has version {version[:20]} of the format, expected {FORMAT}: {advice}")
    if metadata.get("index") != _index_digest(index):
        raise UserError(f"{file} contains the codes of another index: {advice}")
    if metadata.get("checksum") != params_digest(tensors):
        raise UserError(f"{file} is damaged (the checksum does not match): {advice}")
    codes = tensors.pop("codes", np.empty(()))
    try:
        encoder = PerceptronEncoder(tensors)
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}): {advice}") from error
    shape = index.metadata.images, -(-encoder.bits // 8)
    features = len(encoder.tensors["mean"])
    if codes.dtype != np.uint8 or codes.shape != shape or features != index.metadata.features:
        found = f"{codes.dtype} codes of shape {codes.shape} from {features} features"
        raise UserError(f"{file} has {found}, expected uint8 of {shape} from {index.metadata.features}: {advice}")
    return IndexCodes(encoder, codes)


def _index_digest(index: Index) -> str:
    return hashlib.sha256((index.path / "index.json").read_bytes()).hexdigest()
