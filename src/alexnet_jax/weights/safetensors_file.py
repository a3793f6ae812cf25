"""Reader and writer of this project's format for trained models: a .safetensors file with JSON metadata.

conv1.kernel, conv1.bias, …   parameters with a leading tower axis, as in `tower.HostParams`, float32
mean_image                    [size, size, 3], 0 to 255

Metadata values are JSON: `network`, see `Network.to_json`; `classes`, the class names; `config`, the config of the run; `step`,
the training step; `versions`, the versions of the software that saved the model.
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


def write_tensors(file: Path, tensors: dict[str, np.ndarray], json_metadata: dict[str, Any], **metadata: str) -> None:
    """Write a .safetensors file atomically.

    Args:
      file: file to write.
      tensors: tensors by name.
      json_metadata: metadata whose values are encoded as JSON.
      **metadata: metadata that is stored unchanged.
    """
    encoded = {key: json.dumps(value) for key, value in json_metadata.items()}
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    atomic_write(file, save(contiguous, {**metadata, **encoded}))


def read_tensors(file: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a .safetensors file and return its tensors by name and its metadata.

    Raises:
      UserError: if the file cannot be read.
    """
    try:
        with safe_open(file, framework="numpy") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}, tensors.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as error:  # TypeError: dtype unknown to NumPy
        raise UserError(f"cannot read {file}: {error}") from error


def read_json_metadata(metadata: dict[str, str], key: str, file: Path) -> Any:
    """Return a metadata value that `write_tensors` encoded as JSON.

    Args:
      metadata: metadata of the file.
      key: name of the value.
      file: file that the metadata was read from, for the error message.

    Raises:
      UserError: if the value is missing or is not valid JSON.
    """
    try:
        return json.loads(metadata[key])
    except (KeyError, ValueError) as error:
        raise UserError(f"{file} has no valid {key} in its metadata: export the model again") from error


def write_model(file: Path, params: HostParams, mean_image: np.ndarray, metadata: dict[str, Any]) -> None:
    """Write a model atomically.

    Args:
      file: file to write.
      params: parameters with a leading tower axis.
      mean_image: mean image, [size, size, 3], 0 to 255.
      metadata: `network`, `classes`, `config`, `step` and `versions`.
    """
    tensors = {f"{layer}.{kind}": array for layer, arrays in params.items() for kind, array in arrays.items()}
    write_tensors(file, {**tensors, MEAN_IMAGE: mean_image}, metadata, layout=LAYOUT)


def read_model(file: Path) -> tuple[dict[str, Any], HostParams, np.ndarray]:
    """Read a file written by `write_model`.

    Returns:
      Metadata, parameters with a leading tower axis, and mean image.

    Raises:
      UserError: if the file cannot be read, has a different layout, or its tensors or metadata are incomplete or
        invalid.
    """
    tensors, text_metadata = read_tensors(file)
    if text_metadata.get("layout") != LAYOUT:
        raise UserError(
            f"{file} is not in the alexnet-jax layout: convert it with alexnet-jax import {file} --to OTHER.safetensors"
        )
    metadata = {key: read_json_metadata(text_metadata, key, file) for key in ("network", "classes", "config", "step", "versions")}
    shapes = parameter_shapes(Network.from_json(metadata["config"]["network"]))
    flat_shapes = {f"{layer}.{kind}": shape for layer, layer_shapes in shapes.items() for kind, shape in layer_shapes.items()}
    check_names(tensors, {**flat_shapes, MEAN_IMAGE: ()}, str(file))
    for name, shape in flat_shapes.items():
        if tensors[name].shape != shape or tensors[name].dtype != np.float32:
            raise UserError(
                f"{name} in {file} is {tensors[name].dtype} {tensors[name].shape}, expected float32 {shape}: export it again"
            )
    params = {layer: {kind: tensors[f"{layer}.{kind}"] for kind in layer_shapes} for layer, layer_shapes in shapes.items()}
    return metadata, params, tensors[MEAN_IMAGE]
