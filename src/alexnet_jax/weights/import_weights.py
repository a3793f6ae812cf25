"""Import of weights from PyTorch, torchvision or Caffe as a trained model.

Everything that a file says of itself is compared with the network: names and shapes of the arrays, and, in a .caffemodel, order
and constants of the layers.
"""

import difflib
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from alexnet_jax.data.class_names import parse_synset_names
from alexnet_jax.data.records import is_prepared, open_dataset
from alexnet_jax.data.statistics import check_mean_image
from alexnet_jax.errors import UserError
from alexnet_jax.model.catalog import NETWORKS
from alexnet_jax.model.network import Network
from alexnet_jax.model.tower import HostParams
from alexnet_jax.training.run_config import MAX_IMAGE_SIZE, RunConfig
from alexnet_jax.weights import caffe, pytorch, safetensors_file
from alexnet_jax.weights.caffe_layers import check_network
from alexnet_jax.weights.file_format import weights_format
from alexnet_jax.weights.means import IMAGENET_MEAN, ColorOrder, read_mean_image, uniform_mean
from alexnet_jax.weights.state_dict import from_kernels, from_state_dict
from alexnet_jax.weights.trained_model import TrainedModel, from_params

_MEANS = {
    "bvlc_alexnet": IMAGENET_MEAN,
    "caffenet": IMAGENET_MEAN,
    "torchvision_alexnet": pytorch.TORCHVISION_MEAN,
}


class _Weights(NamedTuple):
    """Content of a weights file.

    Attributes:
      network: network of the parameters.
      params: parameters with a leading tower axis, for RGB images.
      mean_image: mean image in the file, or None.
      config: config in a file exported by this package; empty for other files.
      step: training step of the config; 0 for other files.
    """

    network: Network
    params: HostParams
    mean_image: np.ndarray | None = None
    config: dict[str, Any] = {}  # noqa: RUF012 (not modified)
    step: int = 0


def import_weights(
    file: str | Path,
    network: str | None = None,
    *,
    mean: str | Path | None = None,
    classes: str | Path | None = None,
    mean_colors: ColorOrder | None = None,
    image_size: int | None = None,
) -> TrainedModel:
    """Read weights from PyTorch, torchvision or Caffe as a trained model.

    Args:
      file: PyTorch state dict, as a .safetensors file, a file of `torch.save`, or a folder or .index.json file of shards; or
        Caffe weights as .caffemodel, .npz, .h5, .npy or a folder of .npy files. The format is recognized by the content.
      network: key of `NETWORKS`; None uses the network recorded in the file.
      mean: mean image or one value per channel, .binaryproto or .npy, see `means`; None uses the one in the weights file, if any,
        or else the per-channel mean of Caffe or torchvision.
      classes: text file (UTF-8) with one class name per line, ordered by label, or a WordNet id and its name, as in
        LOC_synset_mapping.txt; or a prepared data set. None uses the names in the weights file, if any, or else label numbers.
      mean_colors: order of the channels in the mean; None recognizes it, see `means`.
      image_size: side to which images are scaled before they are cropped, pixels; None uses the one in the weights file, if any,
        or else `default_image_size`.

    Raises:
      UserError: if a file cannot be read, the weights do not match the network or are not finite, or the network or its mean
        image is unknown.
    """
    file = Path(file)
    weights = _read_weights(file, network)
    config, stored_mean, input_size = weights.config, weights.mean_image, weights.network.input_size
    recorded_size = config["augmentation"]["image_size"] if config else None if stored_mean is None else stored_mean.shape[-1]
    size = image_size or recorded_size or default_image_size(weights.network)
    if not input_size <= size <= MAX_IMAGE_SIZE:
        raise UserError(f"--image-size is {size}: choose at least {input_size}, the input size of {weights.network.name}")
    if mean is not None:
        mean_image = read_mean_image(Path(mean), size, mean_colors)
    elif stored_mean is not None:
        mean_image = np.ascontiguousarray(stored_mean.transpose(1, 2, 0)) if stored_mean.ndim == 3 else stored_mean
        check_mean_image(mean_image, size, file, "pass another one with --mean")
    else:
        mean_image = _default_mean_image(weights.network, size)
    names = config["data"]["classes"] if config else None
    display_names = config["data"].get("display_names", []) if config else []
    if classes is not None:
        names, display_names = _read_classes(Path(classes), weights.network)
    model = from_params(weights.network, weights.params, mean_image, names, source=file)
    if not config:
        data = replace(model.config.data, display_names=display_names)
        return replace(model, config=replace(model.config, data=data))
    augmentation = {**config["augmentation"], "image_size": size}
    data = {**config["data"], "classes": names, "display_names": display_names}
    config = {**config, "network": weights.network.to_json(), "augmentation": augmentation, "data": data}
    return replace(model, config=RunConfig.from_json(config, file), step=weights.step)


def _read_weights(file: Path, name: str | None) -> _Weights:
    """Read a weights file as parameters of the network of this name, or of the network recorded in the file if it is None."""
    file_format = weights_format(file)
    if file_format in ("npy", "pickle"):
        kernels = caffe.read_kernels(file, file_format)
        network = _network(name, {}, kernels["fc8"][1] if "fc8" in kernels else None, file)
        return _Weights(network, caffe.swap_bgr_rgb(from_kernels(network, kernels, str(file))))
    if file_format in ("safetensors", "torch", "sharded"):
        arrays, metadata = pytorch.read_pytorch(file, file_format)
        if metadata.get("layout") == safetensors_file.LAYOUT:
            raise UserError(f"{file} is already in the alexnet-jax layout: use it directly, without importing it")
        mean_image = arrays.pop(safetensors_file.MEAN_IMAGE, None)
        config = safetensors_file.read_config(metadata, file)[0] if "config" in metadata else {}
        network = _network(name, config, arrays.get("fc8.bias"), file)
        step = safetensors_file.read_step(metadata, file) if config else 0
        return _Weights(network, from_state_dict(network, arrays, str(file)), mean_image, config, step)
    arrays, net = caffe.read_caffe_weights(file, file_format)
    network = _network(name, {}, arrays.get("fc8.bias"), file)
    check_network(net, network, str(file))
    return _Weights(network, caffe.swap_bgr_rgb(from_state_dict(network, arrays, str(file))))


def default_image_size(network: Network) -> int:
    """Return the side to which images are scaled before they are cropped to the network's input size, pixels.

    The paper crops 224 of 256 pixels, and Caffe 227 of 256.
    """
    return 256 if network.input_size == 227 else network.input_size * 8 // 7


def _network(name: str | None, config: dict[str, Any], last_bias: np.ndarray | None, file: Path) -> Network:
    recorded = Network.from_json(config["network"]) if config else None
    if name is None and recorded:
        return recorded
    if name not in NETWORKS:
        problem = f"{file} does not record its network" if name is None else f"unknown network {name!r}"
        similar = difflib.get_close_matches(name or "", NETWORKS, 1)
        advice = f"did you mean {similar[0]}? Pass" if similar else "pass"
        raise UserError(f"{problem}: {advice} --network with one of {', '.join(NETWORKS)}")
    network = NETWORKS[name] if last_bias is None else NETWORKS[name].with_num_classes(last_bias.size)
    if recorded and recorded != network:
        raise UserError(f"{file} records the network {recorded.name}, which differs from {name}: omit --network")
    return network


def _default_mean_image(network: Network, size: int) -> Float[np.ndarray, "size size 3"]:
    if network.name not in _MEANS:
        raise UserError(f"the mean image of {network.name} is unknown: pass a .npy or .binaryproto file with --mean")
    return uniform_mean(_MEANS[network.name], size)


def _read_classes(file: Path, network: Network) -> tuple[list[str], list[str]]:
    """Return the class names and the names to print, if there are any."""
    display_names: list[str] = []
    if is_prepared(file):
        manifest = open_dataset(file).manifest
        names, display_names = manifest.classes, manifest.display_names
    else:
        try:
            names = file.read_text("utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise UserError(f"{file} is not UTF-8 (byte {error.start:,}): save it as UTF-8 text") from error
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror}; pass a text file or a prepared data set") from error
    names = [name.strip() for name in names if name.strip()]
    if len(synsets := parse_synset_names("\n".join(names))) == len(names):
        names, display_names = list(synsets), list(synsets.values())
    if len(names) != network.num_classes:
        raise UserError(
            f"{file} has {len(names)} class names, expected {network.num_classes}, the number of classes of the network: "
            "pass a file with one name per line"
        )
    return names, display_names
