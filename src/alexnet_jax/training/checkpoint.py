"""Orbax checkpoints of the training state, with checksums and metadata."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax import lax
from jaxtyping import Array, UInt32
from orbax.checkpoint.checkpoint_managers import PreservationPolicy

from alexnet_jax.console import console
from alexnet_jax.errors import UserError, disk_full_as_user_error
from alexnet_jax.files import resolved
from alexnet_jax.parallel.distributed import is_main_process, main_process_first
from alexnet_jax.parallel.mesh import place_like
from alexnet_jax.training.checkpoint_reader import first_sentence, json_digest, read_arrays, read_json, system_error
from alexnet_jax.training.run_config import is_same_run
from alexnet_jax.training.step import TrainState
from alexnet_jax.version import versions

MAX_TO_KEEP = 2
"""Number of latest checkpoints to keep, in addition to the one with the smallest validation error."""


class _Held(NamedTuple):
    """Copy of the training state of a step, not saved yet, with the other arguments of `Checkpoints.save`."""

    step: int
    state: TrainState
    metadata: dict[str, Any]
    best_step: int | None


class Checkpoints:
    """Checkpoint manager of a run.

    A checkpoint contains the training state, a checksum of every array, the run's config, the versions of the packages that
    computed the state, the caller's metadata, and a digest of all of these. Towers are stacked along the first axis of every
    parameter, so a checkpoint can be restored on any number of devices.

    Args:
      folder: folder of all checkpoints of the run, one subfolder per step.
      config: config of the run (see `RunConfig.to_json`); a checkpoint of a different network is rejected.
    """

    def __init__(self, folder: Path, config: dict[str, Any]):
        self._folder, self._config = resolved(folder), config
        self._disk_full_message = f"for a checkpoint in {folder}; earlier checkpoints are intact"
        self._policy = _LatestAndBest()
        self._damaged_folder = self._folder.with_name("damaged")
        options = ocp.CheckpointManagerOptions(preservation_policy=self._policy, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        self.any_saved = bool(self._manager.all_steps())
        """Whether the run has a checkpoint; the first one of this process has then been read back."""
        self._held: _Held | None = None

    def hold(self, state: TrainState, metadata: dict[str, Any], *, best_step: int | None = None) -> None:
        """Keep a copy of the state on the devices, and save it before the next checkpoint or at the end.

        A state that is held already is discarded: `hold` is for the best epoch so far, when the last checkpoint is so recent that
        another one would cost more time than it can save. The arguments are those of `save`.
        """
        state = _without_copies(state)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
        copy = jax.device_put(state, shardings, may_alias=False)  # unlike `jnp.copy`, compiles nothing
        self._held = _Held(int(jax.device_get(state.step)), copy, metadata, best_step)

    def _save_held(self, before: int | None = None) -> None:
        """Save the state that is held, unless it is of step `before` or later, and no longer hold it."""
        held, self._held = self._held, None
        if held is not None and (before is None or held.step < before):
            self.save(held.state, held.metadata, best_step=held.best_step)

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
        step = int(jax.device_get(state.step))
        self._save_held(before=step)
        state = _without_copies(state)
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
            metadata["digest"] = json_digest(metadata)
            self._policy.best_step = best_step
            items = ocp.args.Composite(state=ocp.args.StandardSave(state), metadata=ocp.args.JsonSave(metadata))
            self._manager.save(step, args=items)
        if not self.any_saved:
            self._read_back(step, state, metadata["checksums"])

    def _read_back(self, step: int, state: TrainState, checksums: list[int]) -> None:
        """Wait for the first checkpoint, and check that it can be read."""
        try:
            with disk_full_as_user_error(self._disk_full_message), jax.transfer_guard("allow"):
                self._manager.wait_until_finished()
                read_json(self._folder / str(step))
                read_arrays(self._folder / str(step), _one_leaf_each(state), checksums)
        except UserError:
            raise
        except Exception as error:  # Orbax raises many types of errors
            reason = first_sentence(error, self._folder)
            raise UserError(
                f"the first checkpoint in {self._folder} cannot be read back ({reason}): choose a different --run"
            ) from error
        self.any_saved = True

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
            metadata = read_json(checkpoint)
            if not is_same_run(metadata["config"], self._config):
                raise UserError(
                    f"{self._folder} contains a checkpoint of a different network or data set: "
                    "choose a different --run, or pass --fresh to start over"
                )
            arrays = read_arrays(checkpoint, _one_leaf_each(like), metadata["checksums"])
        except UserError:
            raise
        except Exception as error:  # Orbax raises many types of errors for damaged files
            if cause := system_error(error):
                raise UserError(f"cannot read {checkpoint} ({cause}): it may be intact, so nothing was changed") from error
            reason = first_sentence(error, checkpoint)
            if jax.process_count() > 1:  # the other processes may have read their parts, so all must stop
                message = f"cannot read {checkpoint} ({reason})"
                raise UserError(f"{message}: delete it to resume from the previous checkpoint") from error
            return reason
        return jax.tree.unflatten(jax.tree.structure(like), map(place_like, jax.tree.leaves(like), arrays)), metadata

    def delete_from(self, step: int) -> int | None:
        """Delete the checkpoints of `step` and later steps; return the latest remaining step, or None."""
        self._save_held(before=step)
        self._manager.wait_until_finished()
        for later in [saved for saved in self._manager.all_steps() if saved >= step]:
            self._manager.delete(later)
        return self._manager.latest_step()

    def close(self) -> None:
        """Save the state that is held, wait until the last checkpoint is written, and close the manager.

        Raises:
          UserError: if the disk is full.
        """
        self._save_held()
        with disk_full_as_user_error(self._disk_full_message):
            self._manager.close()


def _without_copies(state: TrainState) -> TrainState:
    """Return the state without the copies of the parameters for the precision of the step."""
    return TrainState(state.step, state.params, state.opt_state)


def _one_leaf_each(tree: Any) -> list[Any]:
    """Return the tree once per leaf, with placeholders for all other leaves."""
    leaves, structure = jax.tree.flatten(tree)
    return [structure.unflatten([0 if i == j else ocp.PLACEHOLDER for j in range(len(leaves))]) for i in range(len(leaves))]


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
