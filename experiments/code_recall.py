"""Recall of search by the binary codes of an index, compared with random hyperplanes (paper, section 6.1).

    alexnet-jax index RUN --data FOLDER --to INDEX --bits 128
    make experiment EXP=code_recall ARGS=INDEX

Queries are the images of the validation or test split of the indexed data set. Recall is the fraction of a query's six nearest
images by Euclidean distance, the number of the paper's Fig. 4, among the first candidates by Hamming distance. This is the recall
of `retrieve`, which ranks the candidates by their exact distances. Random hyperplanes need no training; their recall is the mean
over seeds. The last line of the output is one JSON object.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from hyperplane_codes import random_hyperplanes

from alexnet_jax.analysis.binary_codes import Codes, Encoder, nearest_codes
from alexnet_jax.analysis.code_search import AUTOENCODER, TRAINING_IMAGES, read_codes
from alexnet_jax.analysis.index import Index
from alexnet_jax.analysis.indexing import load_indexed_model, open_indexed_dataset
from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.cli.process import configure_process
from alexnet_jax.console import console
from alexnet_jax.errors import UserError, check_at_least
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.files import write_json

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Recall:
    """Measure the recall of search by the codes of an index.

    Attributes:
      index: index with codes.
      neighbors: number of exact neighbors to find.
      candidates: numbers of images with the nearest codes, among which the neighbors are counted.
      seeds: number of seeds of the random hyperplanes.
      out: JSON file for the result.
    """

    index: tyro.conf.Positional[Path]
    neighbors: int = 6
    candidates: tuple[int, ...] = (6, 100, 500, 1000, 2000)
    seeds: int = 5
    out: Path = RESULTS / "code_recall.json"

    def __post_init__(self) -> None:
        check_at_least(self, neighbors=1, candidates=1, seeds=1)


def encode(index: Index, encoder: Encoder) -> Codes:
    """Encode the images of an index."""
    return np.concatenate([encoder(block) for block in index.blocks()])


def recall(queries: Codes, codes: Codes, exact: np.ndarray, settings: Recall) -> list[float]:
    """Return the fraction of the exact neighbors, [queries, neighbors], among each number of candidates."""
    ranked = nearest_codes(queries, codes, max(settings.candidates))
    return [
        float(np.mean([np.isin(neighbors, row[:count]).mean() for neighbors, row in zip(exact, ranked, strict=True)]))
        for count in settings.candidates
    ]


def main() -> None:
    settings = tyro.cli(Recall)
    configure_process()
    index = Index(settings.index)
    codes = read_codes(index)
    if codes is None:
        raise UserError(f"{index.path} has no codes: build them with alexnet-jax index and --bits")
    model, dataset = load_indexed_model(index), open_indexed_dataset(index)
    split = dataset.evaluation_split
    queries = Predictor(model, layer=index.metadata.layer).predict_split(dataset, split).outputs
    exact = index.search(queries, settings.neighbors).indices
    bits, mean = codes.encoder.bits, codes.encoder.tensors["mean"]
    rows: list[dict[str, Any]] = []

    def add(method: str, recalls: list[list[float]]) -> None:
        means = np.mean(recalls, axis=0).round(4).tolist()
        rows.append({"method": method, "recall": dict(zip(map(str, settings.candidates), means, strict=True))})
        console.print(f"{bits} bits, {method}: {rows[-1]['recall']}")

    add("autoencoder", [recall(codes.encoder(queries), codes.codes, exact, settings)])
    hyperplanes = [random_hyperplanes(mean[None], bits, seed) for seed in range(settings.seeds)]
    add("random hyperplanes", [recall(encoder(queries), encode(index, encoder), exact, settings) for encoder in hyperplanes])
    result = {
        "network": model.network.name,
        "step": model.step,
        "trained_on": Path(model.config.data.path).name,
        "data": dataset.path.name,
        "layer": index.metadata.layer,
        "features": index.metadata.features,
        "images": index.metadata.images,
        "queries": len(queries),
        "neighbors": settings.neighbors,
        "bits": bits,
        "training_steps": AUTOENCODER.steps,
        "training_images": min(TRAINING_IMAGES, index.metadata.images),
        "seeds": settings.seeds,
        "codes": rows,
    }
    print(json.dumps(result))
    write_json(settings.out, result)


if __name__ == "__main__":
    with exit_on_error():
        main()
