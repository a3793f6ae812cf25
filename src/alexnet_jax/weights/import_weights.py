"""A network that others have trained, or that has been exported to PyTorch, as one of ours."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from alexnet_jax.data.records import is_prepared, open_dataset
from alexnet_jax.errors import UserError
from alexnet_jax.model.catalog import NETWORKS
from alexnet_jax.model.network import Network
from alexnet_jax.weights import caffe, pytorch
from alexnet_jax.weights import safetensors_file as model
from alexnet_jax.weights.state_dict import from_state_dict
from alexnet_jax.weights.trained_model import TrainedModel, from_params

_MEANS = {
    "bvlc_alexnet": caffe.IMAGENET_MEAN,
    "caffenet": caffe.IMAGENET_MEAN,
    "torchvision_alexnet": pytorch.TORCHVISION_MEAN,
}
_IMAGE_SIZE = 256
"""Of ImageNet, for which others have trained their networks."""


def import_weights(
    file: str | Path, network: str | None = None, *, mean: str | Path | None = None, classes: str | Path | None = None
) -> TrainedModel:
    """Reads weights of PyTorch, torchvision or Caffe.

    Args:
      file: .safetensors, .pt or .pth with a state dict of PyTorch; .caffemodel, .npz, .h5 or a folder of .npy from Caffe.
      network: what it is, a name of `NETWORKS`; None is what the file says.
      mean: file of the mean image, .binaryproto or .npy; None is that of the file, or the colors its makers subtract.
      classes: file with a name in every line, in the order of the labels, or a prepared data set; None is what the file says,
        or numbers.

    Raises:
      UserError: if what is to be read cannot be, or is not of the network, or the network is not known.
    """
    file = Path(file)
    if not file.exists():
        raise UserError(f"{file} is not there")
    mean_image = None if mean is None else caffe.read_mean_image(Path(mean))
    metadata: dict[str, str] = {}
    if of_pytorch := file.suffix in (".safetensors", ".pt", ".pth"):
        arrays, metadata = pytorch.read_pytorch(file)
        if metadata.get("layout") == model.LAYOUT:
            raise UserError(f"{file} is in our layout already: every command reads it as it is")
        of_file = arrays.pop(model.MEAN_IMAGE, None)
        if mean_image is None and of_file is not None:
            mean_image = np.ascontiguousarray(of_file.transpose(1, 2, 0))
    else:
        arrays = caffe.caffe_blobs(file)
    config: dict[str, Any] = model.described(metadata, "config", file) if "config" in metadata else {}
    known = _network(network, config, arrays.get("fc8.bias"), file)
    params = from_state_dict(known, arrays, str(file))
    names = _classes(Path(classes), known) if classes else config["data"]["classes"] if config else None
    imported = from_params(
        known,
        params if of_pytorch else caffe.with_red_first(params),
        _mean_image(known) if mean_image is None else mean_image,
        names,
        source=file,
    )
    if not config:
        return imported
    ours = {**config, "network": known.to_json(), "data": {**config["data"], "classes": names}}
    return replace(imported, config=ours, step=model.described(metadata, "step", file))


def _network(name: str | None, config: dict[str, Any], last_bias: np.ndarray | None, file: Path) -> Network:
    if name is None and config:
        return Network.from_json(config["network"])
    if name not in NETWORKS:
        raise UserError(f"{file} does not say which network it is: add --network, one of {', '.join(NETWORKS)}")
    return NETWORKS[name] if last_bias is None else NETWORKS[name].with_num_classes(last_bias.size)


def _mean_image(network: Network) -> Float[np.ndarray, "size size 3"]:
    if network.name not in _MEANS:
        raise UserError(f"which mean image {network.name} subtracts is not known: say with --mean, a .npy or .binaryproto")
    return np.full((_IMAGE_SIZE, _IMAGE_SIZE, 3), _MEANS[network.name], np.float32)


def _classes(file: Path, network: Network) -> list[str]:
    names = open_dataset(file).manifest.classes if is_prepared(file) else file.read_text().split("\n")
    names = [name.strip() for name in names if name.strip()]
    if len(names) != network.num_classes:
        raise UserError(f"{file} names {len(names)} classes, and the network has {network.num_classes}")
    return names
