"""Reading of Orbax checkpoints, and the distinction of damaged files from errors of the system."""

import errno
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from alexnet_jax.cpus import available_cpus
from alexnet_jax.errors import UserError
from alexnet_jax.model.tower import HostParams, parameter_shapes
from alexnet_jax.parallel.runtime import check_platform
from alexnet_jax.training.run_config import RunConfig


def read_metadata(checkpoint: Path) -> tuple[dict[str, Any], RunConfig]:
    """Read the metadata of a checkpoint, and the config in them.

    The metadata are the config as JSON, package versions, checksums, and step of the smallest validation error.

    Raises:
      UserError: if the metadata cannot be read, or the config is invalid.
    """
    try:
        metadata = read_json(checkpoint)
        config = RunConfig.from_json(metadata["config"], checkpoint)
        if missing := {"versions", "checksums", "best_step"} - metadata.keys():
            raise ValueError(f"no {min(missing)}")
        return metadata, config
    except UserError:
        raise
    except Exception as error:  # Orbax raises many types of errors for damaged files
        raise _read_error(checkpoint, error) from error


def read_params(checkpoint: Path) -> tuple[dict[str, Any], RunConfig, HostParams]:
    """Read the metadata of a checkpoint, the config in them, and its parameters as NumPy arrays.

    Raises:
      UserError: if the checkpoint cannot be read.
    """
    metadata, config = read_metadata(checkpoint)
    shapes = parameter_shapes(config.network)
    names = [(layer, kind) for layer in sorted(shapes) for kind in sorted(shapes[layer])]
    items = [{"params": {layer: {kind: 0}}} for layer, kind in names]
    try:
        # The checksums follow the leaves of `TrainState`: step, params, opt_state.
        arrays = read_arrays(checkpoint, items, metadata["checksums"][1 : 1 + len(items)], partial=True)
    except Exception as error:  # Orbax raises many types of errors for damaged files
        raise _read_error(checkpoint, error) from error
    params: HostParams = {layer: {} for layer, _ in names}
    for (layer, kind), array in zip(names, arrays, strict=True):
        params[layer][kind] = array
    return metadata, config, params


def read_json(checkpoint: Path) -> dict[str, Any]:
    """Read the metadata of a checkpoint, and check their digest; earlier versions wrote none.

    Raises:
      ValueError: if the digest does not match; Orbax raises other errors for damaged files.
    """
    import orbax.checkpoint as ocp  # noqa: PLC0415 (a quarter of a second, which files without checkpoints do not need)

    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        metadata = reader.restore(checkpoint / "metadata")
    if "digest" in metadata and metadata.pop("digest") != json_digest(metadata):
        raise ValueError("the digest of the metadata does not match")
    return metadata


def json_digest(metadata: dict[str, Any]) -> str:
    """Return the SHA-256 of metadata as JSON."""
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()


def read_arrays(checkpoint: Path, items: list[Any], checksums: list[int], *, partial: bool = False) -> list[np.ndarray]:
    """Read arrays of a checkpoint, and check them.

    Each array is read by a call of its own. Orbax would read those of one call concurrently and, when the first of them fails,
    abandon the others, whose warnings and errors appear later in other places of the program.

    Args:
      checkpoint: folder of the checkpoint.
      items: for each array, a tree like the stored one with the array as its only leaf.
      checksums: expected checksums.
      partial: whether the trees lack other parts of the stored one instead of having placeholders.

    Raises:
      ValueError: if a checksum does not match; Orbax raises other errors for damaged files.
    """
    import orbax.checkpoint as ocp  # noqa: PLC0415

    def read(item_and_checksum: tuple[Any, int]) -> np.ndarray:
        item, checksum = item_and_checksum
        restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
        args = ocp.args.PyTreeRestore(item, restore_args, partial_restore=partial)
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            restored = jax.tree.leaves(reader.restore(checkpoint / "state", args=args))
        (array,) = [leaf for leaf in restored if leaf is not ocp.PLACEHOLDER]
        if int(array.view(np.uint32).sum(dtype=np.uint32)) != checksum:
            raise ValueError("the checksums do not match")
        return array

    # In each call, Orbax waits for the other processes, so all of them must make the calls in the same order.
    threads = available_cpus() if jax.process_count() == 1 else 1
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(read, zip(items, checksums, strict=True)))


def system_error(error: BaseException | None) -> str | None:
    """Return the system's reason for an error of reading a checkpoint; None if its files are damaged or missing.

    Errors of the system, such as a missing permission, a failing disk, too many open files or too little memory, show nothing
    about the files. TensorStore's errors contain the text of the system's error, but not its number.

    Raises:
      UserError: if JAX has no devices.
    """
    check_platform()
    while error is not None:
        if isinstance(error, MemoryError):
            return os.strerror(errno.ENOMEM)
        for number in _SYSTEM_ERRORS:
            if os.strerror(number) in str(error) or (isinstance(error, OSError) and error.errno == number):
                return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None


_SYSTEM_ERRORS = (
    errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN,
    errno.EROFS, errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.ENODEV, errno.ENXIO, errno.ELOOP, errno.ECONNRESET,
)  # fmt: skip


def first_sentence(error: Exception, checkpoint: Path) -> str:
    """Return the beginning of an error message, on one line, without the path of the checkpoint, which may be long."""
    message = str(error).replace(f"{checkpoint}/", "").replace(str(checkpoint), checkpoint.name)
    return " ".join(message.split()).split(". ")[0][:100]


def _read_error(checkpoint: Path, error: Exception) -> UserError:
    reason = system_error(error) or first_sentence(error, checkpoint)
    return UserError(f"cannot read the checkpoint {checkpoint} ({reason}): pass a different checkpoint")
