"""A trained network in one file: parameters and mean image as tensors, what it is as JSON in the metadata of safetensors.

conv1.kernel, conv1.bias, …   as `tower.HostParams` has them, stacked along a first axis of towers
mean_image                    [size, size, 3], gray levels

In the metadata: `network`, see `Network.to_json`; `classes`, their names; `config` of the run; `step`; `versions` that saved it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from alexnet_jax.errors import UserError
from alexnet_jax.files import atomic_write
from alexnet_jax.model.network import Network
from alexnet_jax.model.tower import HostParams, parameter_shapes
from alexnet_jax.weights.state_dict import check_names

SUFFIX = ".safetensors"
LAYOUT = "alexnet-jax"
MEAN_IMAGE = "mean_image"


def write_tensors(file: Path, tensors: dict[str, np.ndarray], about: dict[str, Any], **metadata: str) -> None:
    """Writes a .safetensors file, whole or not at all.

    Args:
      file: to write.
      tensors: by name.
      about: metadata that is written as JSON.
      metadata: that is written as it is.
    """
    described = {key: json.dumps(value) for key, value in about.items()}
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    atomic_write(file, save(contiguous, {**metadata, **described}))


def read_tensors(file: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors by name, and the metadata.

    Raises:
      UserError: if the file cannot be read.
    """
    try:
        with safe_open(file, framework="numpy") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as error:  # TypeError: of a type that NumPy does not have
        raise UserError(f"{file} cannot be read: {error}") from error


def described(metadata: dict[str, str], key: str, file: Path) -> Any:
    """What `write_tensors` has written as JSON.

    Raises:
      UserError: if it is not there.
    """
    try:
        return json.loads(metadata[key])
    except (KeyError, ValueError) as error:
        raise UserError(f"{file} does not say what its {key} is: it is no network that this program has saved") from error


def write_model(file: Path, params: HostParams, mean_image: np.ndarray, about: dict[str, Any]) -> None:
    """Writes a network; `about` has `network`, `classes`, `config`, `step` and `versions`."""
    tensors = {f"{layer}.{kind}": array for layer, of_layer in params.items() for kind, array in of_layer.items()}
    write_tensors(file, {**tensors, MEAN_IMAGE: mean_image}, about, layout=LAYOUT)


def read_model(file: Path) -> tuple[dict[str, Any], HostParams, np.ndarray]:
    """What `write_model` has written: what it is about, parameters, mean image.

    Raises:
      UserError: if the file cannot be read, or is not such a network, or not all of it.
    """
    tensors, metadata = read_tensors(file)
    if metadata.get("layout") != LAYOUT:
        raise UserError(
            f"{file} is no network in our layout: python -m alexnet_jax import {file} --to OTHER.safetensors makes it one"
        )
    about = {key: described(metadata, key, file) for key in ("network", "classes", "config", "step", "versions")}
    wanted = parameter_shapes(Network.from_json(about["config"]["network"]))
    flat = {f"{layer}.{kind}": shape for layer, of_layer in wanted.items() for kind, shape in of_layer.items()}
    check_names(tensors, {**flat, MEAN_IMAGE: ()}, str(file))
    for name, shape in flat.items():
        if tensors[name].shape != shape or tensors[name].dtype != np.float32:
            raise UserError(f"{name} of {file} is {tensors[name].dtype} {tensors[name].shape}, not float32 {shape}")
    params = {layer: {kind: tensors[f"{layer}.{kind}"] for kind in of_layer} for layer, of_layer in wanted.items()}
    return about, params, tensors[MEAN_IMAGE]
