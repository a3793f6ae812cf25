"""Orbax checkpoints of the training state, with checksums and metadata."""

import errno
import os
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import lax
from jaxtyping import Array, UInt32
from orbax.checkpoint.checkpoint_managers import PreservationPolicy

from alexnet_jax.console import console
from alexnet_jax.errors import UserError, disk_full_as_user_error
from alexnet_jax.model.network import Network
from alexnet_jax.model.tower import HostParams, parameter_shapes
from alexnet_jax.parallel.distributed import is_main_process, main_process_first
from alexnet_jax.parallel.runtime import check_platform
from alexnet_jax.training.step import TrainState
from alexnet_jax.version import __version__

MAX_TO_KEEP = 2
"""Number of latest checkpoints to keep, in addition to the one with the smallest validation error."""


class Checkpoints:
    """Checkpoint manager of a run.

    A checkpoint contains the training state, a checksum of every array, the run's config, the versions of the packages that
    computed the state, and the caller's metadata. Towers are stacked along the first axis of every parameter, so a checkpoint
    can be restored on any number of devices.

    Args:
      folder: folder of all checkpoints of the run, one subfolder per step.
      config: config of the run (see `RunConfig.to_json`); a checkpoint of a different network is rejected.
    """

    def __init__(self, folder: Path, config: dict[str, Any]):
        self._folder, self._config = folder.resolve(), config
        self._disk_full_message = f"for a checkpoint in {folder}; earlier checkpoints are intact"
        self._policy = _LatestAndBest()
        self._damaged_folder = self._folder.with_name("damaged")
        options = ocp.CheckpointManagerOptions(preservation_policy=self._policy, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        self._can_be_read = bool(self._manager.all_steps())

    def save(self, state: TrainState, metadata: dict[str, Any], *, best_step: int | None = None) -> None:
        """Start writing a checkpoint in the background; an older one is deleted only after this one is complete.

        The first checkpoint of a run is read back before this function returns.

        Args:
          state: training state to save.
          metadata: further entries of the checkpoint's metadata, as JSON.
          best_step: step with the smallest validation error so far, whose checkpoint is kept; None if there is none.

        Raises:
          UserError: if the disk is full, or the first checkpoint cannot be read back.
        """
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        free = shutil.disk_usage(self._folder).free
        if free < 1.1 * size:
            raise UserError(
                f"a checkpoint of {size / 1e6:,.0f} MB does not fit in {self._folder} ({free / 1e6:,.0f} MB free): "
                "free some disk space, or choose a different --run"
            )
        with (
            disk_full_as_user_error(self._disk_full_message),
            jax.transfer_guard("allow"),  # Orbax copies the arrays to the host implicitly
        ):
            metadata = {
                "config": self._config,
                "versions": versions(),
                "checksums": _checksums(state),
                "best_step": best_step,
                **metadata,
            }
            self._policy.best_step = best_step
            items = ocp.args.Composite(state=ocp.args.StandardSave(state), metadata=ocp.args.JsonSave(metadata))
            self._manager.save(int(jax.device_get(state.step)), args=items)
        if not self._can_be_read:
            self._read_back(int(jax.device_get(state.step)), state, metadata["checksums"])

    def _read_back(self, step: int, state: TrainState, checksums: list[int]) -> None:
        """Wait for the first checkpoint, and check that it can be read."""
        try:
            with disk_full_as_user_error(self._disk_full_message), jax.transfer_guard("allow"):
                self._manager.wait_until_finished()
                _read_json(self._folder / str(step))
                _read_arrays(self._folder / str(step), _one_leaf_each(state), checksums)
        except UserError:
            raise
        except Exception as error:  # Orbax raises many types of errors
            raise UserError(
                f"the first checkpoint in {self._folder} cannot be read back ({_first_sentence(error)}): choose a different --run"
            ) from error
        self._can_be_read = True

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """Restore the latest checkpoint that is not damaged, and move later ones to the folder `damaged` of the run.

        Args:
          like: shapes, dtypes and shardings of the state.

        Returns:
          The state and the checkpoint's metadata; None if there is no checkpoint.

        Raises:
          UserError: if the checkpoints are of a different network, if all of them are damaged, if one cannot be read for a reason
            that is no damage, such as a missing permission, or, in training with several processes, if one process cannot read
            the latest checkpoint.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            restored = self._restore_step(step, like)
            if not isinstance(restored, str):
                with main_process_first("move damaged checkpoints"):
                    for damaged in steps[: steps.index(step)] if is_main_process() else ():
                        self._set_aside(damaged)
                self._manager.reload()
                return restored
            console.print(f"cannot read the checkpoint of step {step} ({restored})", style="yellow", markup=False)
        if steps:
            raise UserError(f"cannot read any checkpoint in {self._folder}: pass --fresh to start over")
        return None

    def _set_aside(self, step: int) -> None:
        """Move a damaged checkpoint out of the folder of the checkpoints."""
        self._damaged_folder.mkdir(exist_ok=True)
        target, count = self._damaged_folder / str(step), 1
        while target.exists():
            target, count = self._damaged_folder / f"{step}-{count + 1}", count + 1
        (self._folder / str(step)).rename(target)
        console.print(f"moved the damaged checkpoint to {target}", style="yellow", markup=False)

    def _restore_step(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]] | str:
        """Return the state and metadata of a checkpoint, or the reason why it cannot be read."""
        checkpoint = self._folder / str(step)
        try:
            metadata = _read_json(checkpoint)
            if metadata["config"]["network"] != self._config["network"]:
                raise UserError(
                    f"{self._folder} contains a checkpoint of a different network: "
                    "choose a different --run, or pass --fresh to start over"
                )
            arrays = _read_arrays(checkpoint, _one_leaf_each(like), metadata["checksums"])
        except UserError:
            raise
        except Exception as error:  # Orbax raises many types of errors for damaged files
            if system_error := _system_error(error):
                raise UserError(f"cannot read {checkpoint} ({system_error}): it may be intact, so nothing was changed") from error
            reason = _first_sentence(error)
            if jax.process_count() > 1:  # the other processes may have read their parts, so all must stop
                message = f"cannot read {checkpoint} ({reason})"
                raise UserError(f"{message}: delete it to resume from the previous checkpoint") from error
            return reason
        return jax.tree.unflatten(jax.tree.structure(like), map(_place, jax.tree.leaves(like), arrays)), metadata

    def delete_from(self, step: int) -> int | None:
        """Delete the checkpoints of `step` and later steps; return the latest remaining step, or None."""
        self._manager.wait_until_finished()
        for later in [saved for saved in self._manager.all_steps() if saved >= step]:
            self._manager.delete(later)
        return self._manager.latest_step()

    def close(self) -> None:
        """Wait until the last checkpoint is written, and close the manager.

        Raises:
          UserError: if the disk is full.
        """
        with disk_full_as_user_error(self._disk_full_message):
            self._manager.close()


def read_metadata(checkpoint: Path) -> dict[str, Any]:
    """Read the metadata of a checkpoint: config, package versions, checksums, and step of the smallest validation error.

    Args:
      checkpoint: folder of the checkpoint.

    Raises:
      UserError: if the metadata cannot be read.
    """
    try:
        return _read_json(checkpoint)
    except Exception as error:  # Orbax raises many types of errors for damaged files
        raise _read_error(checkpoint, error) from error


def read_params(checkpoint: Path) -> tuple[dict[str, Any], HostParams]:
    """Read the metadata of a checkpoint, and its parameters as NumPy arrays.

    Args:
      checkpoint: folder of the checkpoint.

    Raises:
      UserError: if the checkpoint cannot be read.
    """
    metadata = read_metadata(checkpoint)
    shapes = parameter_shapes(Network.from_json(metadata["config"]["network"]))
    names = [(layer, kind) for layer in sorted(shapes) for kind in sorted(shapes[layer])]
    items = [{"params": {layer: {kind: 0}}} for layer, kind in names]
    try:
        # The checksums follow the leaves of `TrainState`: step, params, opt_state.
        arrays = _read_arrays(checkpoint, items, metadata["checksums"][1 : 1 + len(items)], partial=True)
    except Exception as error:  # Orbax raises many types of errors for damaged files
        raise _read_error(checkpoint, error) from error
    params: HostParams = {layer: {} for layer, _ in names}
    for (layer, kind), array in zip(names, arrays, strict=True):
        params[layer][kind] = array
    return metadata, params


def _read_json(checkpoint: Path) -> dict[str, Any]:
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        return reader.restore(checkpoint / "metadata")


def _system_error(error: BaseException | None) -> str | None:
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


def _one_leaf_each(tree: Any) -> list[Any]:
    """Return the tree once per leaf, with placeholders for all other leaves."""
    leaves, structure = jax.tree.flatten(tree)
    return [structure.unflatten([0 if i == j else ocp.PLACEHOLDER for j in range(len(leaves))]) for i in range(len(leaves))]


def _read_arrays(checkpoint: Path, items: list[Any], checksums: list[int], *, partial: bool = False) -> list[np.ndarray]:
    """Read arrays of a checkpoint, and check them.

    The arrays are read one after another. Orbax would read those of one call concurrently and, when the first of them fails,
    abandon the others, whose warnings and errors appear later in other places of the program.

    Args:
      checkpoint: folder of the checkpoint.
      items: for each array, a tree like the stored one with the array as its only leaf.
      checksums: expected checksums.
      partial: whether the trees lack other parts of the stored one instead of having placeholders.

    Raises:
      ValueError: if a checksum does not match; Orbax raises other errors for damaged files.
    """
    arrays = []
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        for item, checksum in zip(items, checksums, strict=True):
            restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
            args = ocp.args.PyTreeRestore(item, restore_args, partial_restore=partial)
            restored = jax.tree.leaves(reader.restore(checkpoint / "state", args=args))
            (array,) = [leaf for leaf in restored if leaf is not ocp.PLACEHOLDER]
            if int(array.view(np.uint32).sum(dtype=np.uint32)) != checksum:
                raise ValueError("the checksums do not match")
            arrays.append(array)
    return arrays


def _place(like: jax.ShapeDtypeStruct, array: np.ndarray) -> jax.Array:
    return jax.make_array_from_callback(like.shape, like.sharding, lambda part: array[part])


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).split(". ")[0][:100]


def _read_error(checkpoint: Path, error: Exception) -> UserError:
    reason = _system_error(error) or _first_sentence(error)
    return UserError(f"cannot read the checkpoint {checkpoint} ({reason}): pass a different checkpoint")


def versions() -> dict[str, str]:
    """Return the versions of this package, of Python, and of the packages that results depend on."""
    packages = {name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")}
    return {"alexnet-jax": __version__, "python": platform.python_version(), **packages}


class _LatestAndBest(PreservationPolicy):
    """Policy that keeps the latest checkpoints and the one with the smallest validation error."""

    best_step: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        latest = sorted(info.step for info in checkpoints)[-MAX_TO_KEEP:]
        return [info.step in latest or info.step == self.best_step for info in checkpoints]


def _checksums(state: TrainState) -> list[int]:
    """Return a checksum of each array: the sum of its 32-bit words modulo 2**32. Orbax stores no checksums."""
    return [int(checksum) for checksum in jax.device_get(_sum_bits(state))]


@jax.jit
def _sum_bits(state: TrainState) -> list[UInt32[Array, ""]]:
    # A sum of integers does not depend on the order of summation across devices.
    return [lax.bitcast_convert_type(leaf, jnp.uint32).sum(dtype=jnp.uint32) for leaf in jax.tree.leaves(state)]
