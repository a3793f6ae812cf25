"""The commands `export` and `import`: a trained network as one file, in our layout or in that of others."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from jaxtyping import Float

from alexnet_jax.architectures import NETWORKS
from alexnet_jax.checkpoint import versions
from alexnet_jax.data.augment import Augmentation
from alexnet_jax.data.records import is_prepared, open_dataset
from alexnet_jax.errors import UserError
from alexnet_jax.network import Network
from alexnet_jax.trained import Trained, load
from alexnet_jax.weights import caffe, model, pytorch
from alexnet_jax.weights.state_dict import from_state_dict, to_state_dict

Layout = Literal["alexnet-jax", "pytorch", "torchvision"]

_MEANS = {
    "bvlc_alexnet": caffe.IMAGENET_MEAN,
    "caffenet": caffe.IMAGENET_MEAN,
    "torchvision_alexnet": pytorch.TORCHVISION_MEAN,
}
_IMAGE_SIZE = 256
"""Of ImageNet, for which others have trained their networks."""


@dataclass(frozen=True)
class Export:
    """Write a trained network to one file, from which every command can read it as from a run.

    Attributes:
      network: run folder, checkpoint RUN/checkpoints/STEP, or a file that this command has written.
      to: the .safetensors file.
      layout: "pytorch" is a state dict for `experiments/pytorch_network.py`; "torchvision", one for torchvision's alexnet.
      best: of a run, take the checkpoint with the smallest validation error.
    """

    network: tyro.conf.Positional[Path]
    to: Path
    layout: Layout = "alexnet-jax"
    best: bool = False


@dataclass(frozen=True)
class Import:
    """Make a network that others have trained, or that has been exported to PyTorch, one that every command can read.

    Attributes:
      file: .safetensors, .pt or .pth with a state dict of PyTorch; .caffemodel, .npz, .h5 or a folder of .npy from Caffe.
      to: the .safetensors file to write.
      network: what it is, a name of `summary`; None is what the file says.
      mean: mean image, .binaryproto or .npy; None is that of the file, or the colours its makers subtract.
      classes: file with a name in every line, in the order of the labels, or a prepared data set; None is what the file says,
        or numbers.
    """

    file: tyro.conf.Positional[Path]
    to: Path
    network: str | None = None
    mean: Path | None = None
    classes: Path | None = None


def export(command: Export) -> Path:
    """Writes the file.

    Raises:
      UserError: if the network cannot be read, or has no such layout, or the disk no room.
    """
    _check(command.to)
    trained = load(command.network, best=command.best)
    if command.layout == "alexnet-jax":
        write(trained, command.to)
        return command.to
    network, mean = trained.network, trained.mean_image
    arrays = to_state_dict(network, trained.params)
    if command.layout == "torchvision":
        if not pytorch.is_torchvisions(network):
            raise UserError(f"{network.name} is not torchvision's alexnet: take --layout pytorch")
        if not (mean == mean[0, 0]).all():
            raise UserError("torchvision subtracts a number for each colour, this network a mean image: take --layout pytorch")
        arrays = pytorch.to_torchvision(arrays)
    else:
        arrays[model.MEAN_IMAGE] = np.ascontiguousarray(mean.transpose(2, 0, 1))
    model.write_tensors(command.to, arrays, _about(trained), layout=command.layout, format="pt")
    return command.to


def write(trained: Trained, file: Path) -> None:
    """Writes a network to a file for `trained.load`, whole or not at all.

    Raises:
      UserError: if the disk has no room.
    """
    model.write_model(file, trained.params, trained.mean_image, _about(trained))


def import_(command: Import) -> Path:
    """Writes the file.

    Raises:
      UserError: if what is to be read cannot be, or is not of the network, or the network is not known.
    """
    _check(command.to)
    write(read(command), command.to)
    return command.to


def read(command: Import) -> Trained:
    """The network of a file of others; it is not written.

    Raises:
      UserError: as `import_`.
    """
    file = command.file
    if not file.exists():
        raise UserError(f"{file} is not there")
    config: dict[str, Any] = {}
    mean = None if command.mean is None else caffe.read_mean_image(command.mean)
    step = 0
    if file.suffix in (".safetensors", ".pt", ".pth"):
        arrays, metadata = pytorch.read_pytorch(file)
        if metadata.get("layout") == model.LAYOUT:
            raise UserError(f"{file} is in our layout already: every command reads it as it is")
        if "config" in metadata:
            config, step = (model.described(metadata, key, file) for key in ("config", "step"))
        network = _network(command.network, config, arrays.get("fc8.bias"), file)
        of_file = arrays.pop(model.MEAN_IMAGE, None)
        if mean is None and of_file is not None:
            mean = np.ascontiguousarray(of_file.transpose(1, 2, 0))
        params = from_state_dict(network, arrays, str(file))
    else:
        blobs = caffe.caffe_blobs(file)
        network = _network(command.network, config, blobs.get("fc8.bias"), file)
        params = caffe.with_red_first(from_state_dict(network, blobs, str(file)))
    if mean is None:
        mean = _mean_image(network)
    names = _classes(command.classes, network) if command.classes or not config else config["data"]["classes"]
    made = config or {
        "augmentation": asdict(Augmentation(image_size=len(mean), color=None)),
        "data": {"path": "imagenet", "splits": {}, "classes": names},
        "imported": str(file.resolve()),
    }
    made = {**made, "network": network.to_json(), "data": {**made["data"], "classes": names}}
    return Trained(file, step, network, params, mean, made, versions())


def _about(trained: Trained) -> dict[str, Any]:
    return {
        "network": trained.network.to_json(),
        "classes": trained.classes,
        "config": trained.config,
        "step": trained.step,
        "versions": trained.versions,
    }


def _check(to: Path) -> None:
    if to.suffix != model.SUFFIX:
        raise UserError(f"{to} should end in {model.SUFFIX}, which is what will be in it")


def _network(name: str | None, config: dict[str, Any], last_bias: np.ndarray | None, file: Path) -> Network:
    if name is None and config:
        return Network.from_json(config["network"])
    if name not in NETWORKS:
        raise UserError(f"{file} does not say which network it is: add --network, one of {', '.join(NETWORKS)}")
    return NETWORKS[name] if last_bias is None else NETWORKS[name].with_classes(last_bias.size)


def _mean_image(network: Network) -> Float[np.ndarray, "size size 3"]:
    if network.name not in _MEANS:
        raise UserError(f"which mean image {network.name} subtracts is not known: say with --mean, a .npy or .binaryproto")
    return np.full((_IMAGE_SIZE, _IMAGE_SIZE, 3), _MEANS[network.name], np.float32)


def _classes(file: Path | None, network: Network) -> list[str]:
    if file is None:
        return [str(number) for number in range(network.classes)]
    names = open_dataset(file).manifest.classes if is_prepared(file) else file.read_text().split("\n")
    names = [name.strip() for name in names if name.strip()]
    if len(names) != network.classes:
        raise UserError(f"{file} names {len(names)} classes, and the network has {network.classes}")
    return names
