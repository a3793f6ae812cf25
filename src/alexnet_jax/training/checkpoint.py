"""Orbax checkpoints of the training state, with checksums and metadata."""

import gc
import logging
import platform
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from alexnet_jax.model.tower import HostParams
from alexnet_jax.parallel.distributed import is_main_process, main_process_first
from alexnet_jax.training.step import TrainState
from alexnet_jax.version import __version__

MAX_TO_KEEP = 2
"""Number of latest checkpoints to keep, in addition to the one with the smallest validation error."""


def _ignore_closed_event_loop(unraisable: Any, hook: Callable[[Any], Any] = sys.unraisablehook) -> None:
    """Suppress the errors of array writes that Orbax abandons after another array has failed to be written."""
    if str(unraisable.exc_value) != "Event loop is closed":
        hook(unraisable)


sys.unraisablehook = _ignore_closed_event_loop
for _logger_name in ("absl", "asyncio"):  # Orbax logs every file and asyncio every array; errors are raised anyway
    logging.getLogger(_logger_name).setLevel(logging.CRITICAL)


class Checkpoints:
    """Checkpoint manager of a run.

    A checkpoint contains the training state, a checksum of every array, the run's config, the versions of the packages that
    computed the state, and the caller's metadata. Towers are stacked along the first axis of every parameter, so a checkpoint
    can be restored on any number of devices.

    Args:
      folder: folder of all checkpoints of the run, one subfolder per step.
      config: config of the run (see `run_directory.run_config`); a checkpoint of a different network is rejected.
    """

    def __init__(self, folder: Path, config: dict[str, Any]):
        self._folder, self._config = folder.resolve(), config
        self._disk_full_message = f"for a checkpoint in {folder}; earlier checkpoints are intact"
        self._policy = _LatestAndBest()
        options = ocp.CheckpointManagerOptions(preservation_policy=self._policy, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, state: TrainState, metadata: dict[str, Any], *, best_step: int | None = None) -> None:
        """Start writing a checkpoint in the background; an older one is deleted only after this one is complete.

        Args:
          state: training state to save.
          metadata: further entries of the checkpoint's metadata, as JSON.
          best_step: step with the smallest validation error so far, whose checkpoint is kept; None if there is none.

        Raises:
          UserError: if the disk is full.
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

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """Restore the latest readable checkpoint, then delete later ones that are damaged.

        Args:
          like: shapes, dtypes and shardings of the state.

        Returns:
          The state and the checkpoint's metadata; None if there is no checkpoint.

        Raises:
          UserError: if the checkpoints are of a different network, if none of them can be read, or, in training with several
            processes, if one process cannot read its part of the latest checkpoint.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            with _ignore_abandoned_reads():
                restored = self._restore_step(step, like)
                if isinstance(restored, str):
                    time.sleep(0.2)  # let pending reads end while their errors are ignored
                    gc.collect()
            if not isinstance(restored, str):
                with main_process_first("delete damaged checkpoints"):
                    for damaged in steps[: steps.index(step)] if is_main_process() else ():
                        shutil.rmtree(self._folder / str(damaged))
                self._manager.reload()
                return restored
            console.print(f"cannot read the checkpoint of step {step} ({restored})", style="yellow", markup=False)
        if steps:
            raise UserError(f"cannot read any checkpoint in {self._folder}: pass --fresh to start over")
        return None

    def _restore_step(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]] | str:
        """Return the state and metadata of a checkpoint, or the reason why it cannot be read."""
        try:
            metadata = self._manager.restore(step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore()))["metadata"]
            if metadata["config"]["network"] != self._config["network"]:
                raise UserError(
                    f"{self._folder} contains a checkpoint of a different network: "
                    "choose a different --run, or pass --fresh to start over"
                )
            state = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like)))["state"]
        except UserError:
            raise
        except Exception as error:  # Orbax raises many types of errors for damaged files
            reason = " ".join(str(error).split()).split(". ")[0][:100]
            if jax.process_count() > 1:  # the other processes may have read their parts, so all must stop
                message = f"cannot read {self._folder / str(step)} ({reason})"
                raise UserError(f"{message}: delete it to resume from the previous checkpoint") from error
            return reason
        return (state, metadata) if _checksums(state) == metadata["checksums"] else "the checksums do not match"

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
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            return reader.restore(checkpoint / "metadata")
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
    with _ignore_abandoned_reads():
        try:
            params = _restore_params(checkpoint)
            # The checksums follow the leaves of `TrainState`: step, params, opt_state.
            checksums = metadata["checksums"][1 : 1 + len(jax.tree.leaves(params))]
            if [int(leaf.view(np.uint32).sum(dtype=np.uint32)) for leaf in jax.tree.leaves(params)] != checksums:
                raise ValueError("the checksums do not match")
            return metadata, params
        except Exception as error:  # Orbax raises many types of errors for damaged files
            read_error = _read_error(checkpoint, error)
        time.sleep(0.2)  # let pending reads end while their errors are ignored
        gc.collect()
    raise read_error


def _restore_params(checkpoint: Path) -> HostParams:
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.metadata(checkpoint / "state").item_metadata.tree["params"]
        item = jax.tree.map(lambda _: 0, tree)
        restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
        args = ocp.args.PyTreeRestore({"params": item}, {"params": restore_args}, partial_restore=True)
        return reader.restore(checkpoint / "state", args=args)["params"]


def _read_error(checkpoint: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split()).split(". ")[0][:100]
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


@contextmanager
def _ignore_abandoned_reads() -> Iterator[None]:
    """Suppress the warnings and errors of array reads that Orbax abandons after another array has failed to be read."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
    finally:
        sys.unraisablehook = hook
