"""Checkpoints with Orbax: the whole training state, under the number of its step, with all it takes to know what it is."""

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

import alexnet_jax
from alexnet_jax.console import console
from alexnet_jax.errors import UserError, disk_full_as_user_error
from alexnet_jax.model.tower import HostParams
from alexnet_jax.parallel.distributed import is_main_process, main_process_first
from alexnet_jax.training.step import TrainState

KEEP = 2
"""Latest checkpoints that stay; the one with the smallest validation error stays besides."""


def _tell_unless_abandoned(what: Any, tell: Callable[[Any], Any] = sys.unraisablehook) -> None:
    """Where one array cannot be written, Orbax does not wait for the others, and Python complains of each where nobody acts."""
    if str(what.exc_value) != "Event loop is closed":
        tell(what)


sys.unraisablehook = _tell_unless_abandoned
for _noisy in ("absl", "asyncio"):  # Orbax tells of every file, asyncio of every array; what goes wrong is raised besides
    logging.getLogger(_noisy).setLevel(logging.CRITICAL)


class Checkpoints:
    """The checkpoints of a run, in a folder.

    A checkpoint holds the state and its checksums, the configuration of the run, the versions of what computed it, and
    whatever else the run wants back (`extra`). Towers lie along the first axis of every parameter, so it does not matter on
    how many devices it is written or read.

    Args:
      folder: of all checkpoints.
      config: see `run.configuration`; a state of another network is refused.
    """

    def __init__(self, folder: Path, config: dict[str, Any]):
        self._folder, self._config = folder.resolve(), config
        self._for_a_checkpoint = f"for a checkpoint in {folder}; earlier ones are whole"
        self._kept = _LatestAndBest()
        options = ocp.CheckpointManagerOptions(preservation_policy=self._kept, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, state: TrainState, extra: dict[str, Any], *, best: int | None = None) -> None:
        """Starts to write a checkpoint and returns; an earlier one is deleted only when this one is whole.

        Args:
          state: to be saved.
          extra: whatever else, as JSON.
          best: step of the smallest validation error so far: its checkpoint stays.

        Raises:
          UserError: if the disk has no room for it.
        """
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        free = shutil.disk_usage(self._folder).free
        if free < 1.1 * size:
            raise UserError(f"no room for a checkpoint of {size / 1e6:,.0f} MB in {self._folder}: {free / 1e6:,.0f} MB are free")
        with (
            disk_full_as_user_error(self._for_a_checkpoint),
            jax.transfer_guard("allow"),
        ):  # how it fetches arrays is Orbax's business
            about = {"config": self._config, "versions": versions(), "checksums": _checksums(state), "best": best, **extra}
            self._kept.best = best
            items = ocp.args.Composite(state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(about))
            self._manager.save(int(jax.device_get(state.step)), args=items)

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The latest checkpoint that is whole, and its `extra`; None if there are none.

        Later ones, which are damaged, are deleted when one that is whole has been read: their steps are taken again.

        Args:
          like: shapes, types and shardings of the state.

        Raises:
          UserError: if the checkpoints are of another network, or none can be read, or, where there are several processes,
            if one of them cannot read its part of the latest.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            with _abandoned_reads_ignored():
                found = self._read(step, like)
                if isinstance(found, str):
                    time.sleep(0.2)  # reads under way end now, rather than after this
                    gc.collect()
            if not isinstance(found, str):
                with main_process_first("damaged checkpoints"):
                    for damaged in steps[: steps.index(step)] if is_main_process() else ():
                        shutil.rmtree(self._folder / str(damaged))
                self._manager.reload()
                return found
            console.print(f"the checkpoint of step {step} cannot be read: {found}", style="yellow", markup=False)
        if steps:
            raise UserError(f"no checkpoint in {self._folder} can be read: --fresh starts over")
        return None

    def _read(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]] | str:
        """A checkpoint, or why it cannot be read."""
        try:
            about = self._manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"]
            if about["config"]["network"] != self._config["network"]:
                raise UserError(
                    f"{self._folder} holds a checkpoint of another network: give another --run, or --fresh to start over"
                )
            state = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like)))["state"]
        except UserError:
            raise
        except Exception as error:  # whatever Orbax meets in a damaged folder
            why = " ".join(str(error).split()).split(". ")[0][:100]
            if jax.process_count() > 1:  # the others may have read their parts, and would not come to the one before
                unread = f"{self._folder / str(step)} cannot be read: {why}"
                raise UserError(f"{unread}; delete it to go on from the one before") from error
            return why
        return (state, about) if _checksums(state) == about["checksums"] else "its numbers are not those that were saved"

    def drop_from(self, step: int) -> int | None:
        """Deletes the checkpoints of `step` and later ones; the step of the last that is left, if any is."""
        self._manager.wait_until_finished()
        for later in [saved for saved in self._manager.all_steps() if saved >= step]:
            self._manager.delete(later)
        return self._manager.latest_step()

    def close(self) -> None:
        """Waits until the last checkpoint is on the disk.

        Raises:
          UserError: if the disk had no room for it.
        """
        with disk_full_as_user_error(self._for_a_checkpoint):
            self._manager.close()


def read_metadata(checkpoint: Path) -> dict[str, Any]:
    """What is known of a checkpoint, without its arrays: the configuration of its run, versions, checksums, the best step.

    Raises:
      UserError: if it cannot be read.
    """
    try:
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            return reader.restore(checkpoint / "about")
    except Exception as error:  # in a damaged folder, anything
        raise _told(checkpoint, error) from error


def read_params(checkpoint: Path) -> tuple[dict[str, Any], HostParams]:
    """What is known of a checkpoint, and its parameters as NumPy arrays.

    Raises:
      UserError: if it cannot be read.
    """
    about = read_metadata(checkpoint)
    with _abandoned_reads_ignored():
        try:
            params = _read_parameters(checkpoint)
            sums = about["checksums"][1 : 1 + len(jax.tree.leaves(params))]  # of the step comes before, of the velocity after
            if [int(leaf.view(np.uint32).sum(dtype=np.uint32)) for leaf in jax.tree.leaves(params)] != sums:
                raise ValueError("its numbers are not those that were saved")
            return about, params
        except Exception as error:  # in a damaged folder, anything
            told = _told(checkpoint, error)
        time.sleep(0.2)  # reads under way end now, rather than after this
        gc.collect()
    raise told


def _read_parameters(checkpoint: Path) -> HostParams:
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        there = reader.metadata(checkpoint / "state").item_metadata.tree["params"]
        like = jax.tree.map(lambda _: 0, there)
        how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
        wanted = ocp.args.PyTreeRestore({"params": like}, {"params": how}, partial_restore=True)
        return reader.restore(checkpoint / "state", args=wanted)["params"]


def _told(checkpoint: Path, error: Exception) -> UserError:
    why = " ".join(str(error).split()).split(". ")[0][:100]
    return UserError(f"the checkpoint {checkpoint} cannot be read: {why}")


def versions() -> dict[str, str]:
    """Of this package, of Python and of what the numbers depend on."""
    others = {name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")}
    return {"alexnet-jax": alexnet_jax.__version__, "python": platform.python_version(), **others}


class _LatestAndBest(PreservationPolicy):
    """Which checkpoints stay."""

    best: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        latest = sorted(info.step for info in checkpoints)[-KEEP:]
        return [info.step in latest or info.step == self.best for info in checkpoints]


def _checksums(state: TrainState) -> list[int]:
    """A number for each array that changes with any of its bits; the files have none."""
    return [int(number) for number in jax.device_get(_sums_of_bits(state))]


@jax.jit
def _sums_of_bits(state: TrainState) -> list[UInt32[Array, ""]]:
    # Integers, so that the sum does not depend on the order in which devices add.
    return [lax.bitcast_convert_type(leaf, jnp.uint32).sum(dtype=jnp.uint32) for leaf in jax.tree.leaves(state)]


@contextmanager
def _abandoned_reads_ignored() -> Iterator[None]:
    """When one array cannot be read, Orbax never waits for the others, and Python complains of them where nobody can act."""
    complain = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
    finally:
        sys.unraisablehook = complain
