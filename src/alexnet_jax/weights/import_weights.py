"""Import of weights from PyTorch, torchvision or Caffe as a trained model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from alexnet_jax.data.records import is_prepared, open_dataset
from alexnet_jax.errors import UserError
from alexnet_jax.model.catalog import NETWORKS
from alexnet_jax.model.network import Network
from alexnet_jax.training.run_config import RunConfig
from alexnet_jax.weights import caffe, pytorch, safetensors_file
from alexnet_jax.weights.state_dict import from_state_dict
from alexnet_jax.weights.trained_model import TrainedModel, from_params

_MEANS = {
    "bvlc_alexnet": caffe.IMAGENET_MEAN,
    "caffenet": caffe.IMAGENET_MEAN,
    "torchvision_alexnet": pytorch.TORCHVISION_MEAN,
}
_IMAGE_SIZE = 256
"""Side to which images are decoded for ImageNet models, pixels."""


def import_weights(
    file: str | Path, network: str | None = None, *, mean: str | Path | None = None, classes: str | Path | None = None
) -> TrainedModel:
    """Read weights from PyTorch, torchvision or Caffe as a trained model.

    Args:
      file: .safetensors, .pt or .pth file with a PyTorch state dict, or Caffe weights as .caffemodel, .npz, .h5 or a folder of
        .npy files.
      network: key of `NETWORKS`; None uses the network recorded in the file.
      mean: mean image, .binaryproto or .npy; None uses the one in the weights file, if any, or else the per-channel mean of
        Caffe or torchvision.
      classes: text file with one class name per line, ordered by label, or a prepared data set; None uses the names recorded in
        the weights file, or else the label numbers.

    Raises:
      UserError: if a file cannot be read, the weights do not match the network, or the network or its mean image is unknown.
    """
    file = Path(file)
    if not file.exists():
        raise UserError(f"{file} does not exist")
    mean_image = None if mean is None else caffe.read_mean_image(Path(mean))
    metadata: dict[str, str] = {}
    if is_pytorch := file.suffix in (".safetensors", ".pt", ".pth"):
        arrays, metadata = pytorch.read_pytorch(file)
        if metadata.get("layout") == safetensors_file.LAYOUT:
            raise UserError(f"{file} is already in the alexnet-jax layout: use it directly, without importing it")
        stored_mean = arrays.pop(safetensors_file.MEAN_IMAGE, None)
        if mean_image is None and stored_mean is not None:
            mean_image = np.ascontiguousarray(stored_mean.transpose(1, 2, 0))
    else:
        arrays = caffe.read_caffe_weights(file)
    config = None
    if "config" in metadata:
        config = RunConfig.from_json(safetensors_file.read_json_metadata(metadata, "config", file))
    architecture = _network(network, config, arrays.get("fc8.bias"), file)
    params = from_state_dict(architecture, arrays, str(file))
    names = _read_classes(Path(classes), architecture) if classes else config.data.classes if config else None
    model = from_params(
        architecture,
        params if is_pytorch else caffe.swap_bgr_rgb(params),
        _default_mean_image(architecture) if mean_image is None else mean_image,
        names,
        source=file,
    )
    if config is None:
        return model
    config = replace(config, network=architecture, data=replace(config.data, classes=model.classes))
    return replace(model, config=config, step=safetensors_file.read_json_metadata(metadata, "step", file))


def _network(name: str | None, config: RunConfig | None, last_bias: np.ndarray | None, file: Path) -> Network:
    if name is None and config:
        return config.network
    if name not in NETWORKS:
        problem = f"{file} does not record its network" if name is None else f"unknown network {name!r}"
        raise UserError(f"{problem}: pass --network with one of {', '.join(NETWORKS)}")
    return NETWORKS[name] if last_bias is None else NETWORKS[name].with_num_classes(last_bias.size)


def _default_mean_image(network: Network) -> Float[np.ndarray, "size size 3"]:
    if network.name not in _MEANS:
        raise UserError(f"the mean image of {network.name} is unknown: pass a .npy or .binaryproto file with --mean")
    return np.full((_IMAGE_SIZE, _IMAGE_SIZE, 3), _MEANS[network.name], np.float32)


def _read_classes(file: Path, network: Network) -> list[str]:
    names = open_dataset(file).manifest.classes if is_prepared(file) else file.read_text().split("\n")
    names = [name.strip() for name in names if name.strip()]
    if len(names) != network.num_classes:
        raise UserError(
            f"{file} has {len(names)} class names, expected {network.num_classes}, the number of classes of the network"
        )
    return names
