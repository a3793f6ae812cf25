"""Reader and writer of this project's format for trained models: a .safetensors file with JSON metadata.

conv1.kernel, conv1.bias, …   parameters with a leading tower axis, as in `tower.HostParams`, float32
mean_image                    [size, size, 3], 0 to 255

The metadata value `layout` is "alexnet-jax", `format` the version of this format, and `checksum` that of the tensors. A file can
be read by all versions of this package with the same format version, which changes with every change of the format. The other
metadata values are JSON: `network`, see `Network.to_json`; `classes`, the class names; `config`, the config of the run; `step`,
the training step; `versions`, the versions of the software that saved the model.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from alexnet_jax.data.statistics import check_mean_image
from alexnet_jax.errors import UserError, one_line
from alexnet_jax.files import atomic_write
from alexnet_jax.model.tower import HostParams, parameter_shapes, params_digest
from alexnet_jax.training.run_config import RunConfig
from alexnet_jax.weights.state_dict import check_finite, check_names

SUFFIX = ".safetensors"
LAYOUT = "alexnet-jax"
FORMAT = "2"
"""Version of the format."""
MEAN_IMAGE = "mean_image"


def write_tensors(file: Path, tensors: dict[str, np.ndarray], json_metadata: dict[str, Any], **metadata: str) -> None:
    """Write a .safetensors file atomically, with metadata that are encoded as JSON and others that are stored unchanged."""
    encoded = {key: json.dumps(value) for key, value in json_metadata.items()}
    contiguous = {name: np.asarray(array, order="C") for name, array in tensors.items()}  # keeps scalars, too
    atomic_write(file, save(contiguous, {**metadata, **encoded}))


def read_tensors(file: Path, advice: str = "download or export it again") -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a .safetensors file and return its tensors by name and its metadata.

    Raises:
      UserError: if the file cannot be read.
    """
    with _read_errors(file, advice), safe_open(file, framework="numpy") as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.keys()}, tensors.metadata() or {}  # noqa: SIM118


@contextmanager
def _read_errors(file: Path, advice: str = "download or export it again") -> Iterator[None]:
    try:
        if file.is_fifo():  # opening it would wait forever
            raise ValueError("it is a named pipe")
        yield
    except Exception as error:  # safetensors raises exceptions of many types on damaged files and unknown dtypes
        reason = one_line(error, 200)
        raise UserError(f"cannot read {file}: {reason}; {advice}") from error


def read_run_config(file: Path) -> RunConfig:
    """Read the config of a file written by `write_model`, without its tensors.

    Raises:
      UserError: if the file cannot be read, or has a different layout.
    """
    with _read_errors(file), safe_open(file, framework="numpy") as tensors:
        metadata = tensors.metadata() or {}
    _check_layout(metadata, file)
    return read_config(metadata, file)[1]


def read_json_metadata(metadata: dict[str, str], key: str, file: Path) -> Any:
    """Return a metadata value that `write_tensors` encoded as JSON.

    Raises:
      UserError: if the value is missing or is not valid JSON.
    """
    try:
        return json.loads(metadata[key])
    except (KeyError, ValueError) as error:
        raise UserError(f"{file} has no valid {key} in its metadata: export the model again") from error


def read_config(metadata: dict[str, str], file: Path) -> tuple[dict[str, Any], RunConfig]:
    """Return the config in a file's metadata, as JSON and as an object.

    Raises:
      UserError: if it is missing or invalid.
    """
    record = read_json_metadata(metadata, "config", file)
    return record, RunConfig.from_json(record, file)


def read_step(metadata: dict[str, str], file: Path) -> int:
    """Return the training step in a file's metadata.

    Raises:
      UserError: if it is missing or not a number of steps.
    """
    step = read_json_metadata(metadata, "step", file)
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise UserError(f"{file} has no valid step in its metadata: export the model again")
    return step


def write_model(file: Path, params: HostParams, mean_image: np.ndarray, metadata: dict[str, Any]) -> None:
    """Write a model atomically.

    Args:
      file: file to write.
      params: parameters with a leading tower axis.
      mean_image: mean image, [size, size, 3], 0 to 255.
      metadata: `network`, `classes`, `config`, `step` and `versions`.
    """
    tensors = {f"{layer}.{kind}": array for layer, arrays in params.items() for kind, array in arrays.items()}
    tensors[MEAN_IMAGE] = mean_image
    write_tensors(file, tensors, metadata, layout=LAYOUT, format=FORMAT, checksum=params_digest(tensors))


def read_model(file: Path) -> tuple[dict[str, Any], RunConfig, HostParams, np.ndarray]:
    """Read a file written by `write_model`.

    Returns:
      Metadata besides the config, the config, parameters with a leading tower axis, and mean image.

    Raises:
      UserError: if the file cannot be read, has a different layout or format version, its checksum does not match, or its
        tensors or metadata are incomplete or invalid.
    """
    tensors, text_metadata = read_tensors(file)
    _check_layout(text_metadata, file)
    if params_digest(tensors) != text_metadata.get("checksum"):
        raise UserError(f"{file} is damaged (the checksum does not match): export the model again, or copy the file again")
    metadata = {key: read_json_metadata(text_metadata, key, file) for key in ("network", "classes", "versions")}
    record, config = read_config(text_metadata, file)
    metadata["step"] = read_step(text_metadata, file)
    versions = metadata["versions"]
    if not isinstance(versions, dict) or not all(isinstance(version, str) for version in versions.values()):
        raise UserError(f"{file} has no valid versions in its metadata: export the model again")
    if metadata["network"] != record["network"] or metadata["classes"] != config.data.classes:
        raise UserError(f"{file} has a network or classes that differ from those of its config: export the model again")
    try:
        shapes = parameter_shapes(config.network)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:  # layers that do not fit together
        raise UserError(f"{file} has a network whose layers do not fit together: export the model again") from error
    flat_shapes = {f"{layer}.{kind}": shape for layer, layer_shapes in shapes.items() for kind, shape in layer_shapes.items()}
    check_names(tensors, {**flat_shapes, MEAN_IMAGE: ()}, str(file))
    for name, shape in flat_shapes.items():
        if tensors[name].shape != shape or tensors[name].dtype != np.float32:
            raise UserError(
                f"{name} in {file} is {tensors[name].dtype} {tensors[name].shape}, expected float32 {shape}: export it again"
            )
        check_finite(tensors[name], name, file)
    check_mean_image(tensors[MEAN_IMAGE], config.augmentation.image_size, file, "export the model again")
    params = {layer: {kind: tensors[f"{layer}.{kind}"] for kind in layer_shapes} for layer, layer_shapes in shapes.items()}
    return metadata, config, params, tensors[MEAN_IMAGE]


def _check_layout(metadata: dict[str, str], file: Path) -> None:
    if metadata.get("layout") != LAYOUT:
        raise UserError(
            f"{file} is not in the alexnet-jax layout: convert it with alexnet-jax import {file} --to OTHER.safetensors"
        )
    if (file_format := metadata.get("format", "1")) != FORMAT:
        raise UserError(f"{file} has version {file_format[:20]} of the format, expected {FORMAT}: export the model again")
