"""Checkpoints with Orbax: the whole training state, under the number of its step."""

import errno
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from alexnet_jax.console import console
from alexnet_jax.errors import UserError
from alexnet_jax.step import TrainState

KEEP = 2

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells of every file it writes


class Checkpoints:
    """The checkpoints of a run, in a folder.

    A checkpoint holds the state, the layers of its network and whatever else the run wants back (`extra`). Towers lie along
    the first axis of every parameter, so it does not matter on how many devices it is written or read.
    """

    def __init__(self, folder: Path, network: list[str]):
        self._folder, self._network = folder.resolve(), network
        options = ocp.CheckpointManagerOptions(max_to_keep=KEEP, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, state: TrainState, extra: dict[str, Any]) -> None:
        """Starts to write a checkpoint and returns; an earlier one is deleted only when this one is whole.

        Raises:
          UserError: if the disk has no room for it.
        """
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        free = shutil.disk_usage(self._folder).free
        if free < 1.1 * size:
            raise UserError(f"no room for a checkpoint of {size / 1e6:,.0f} MB in {self._folder}: {free / 1e6:,.0f} MB are free")
        with _full_disk_told(self._folder), jax.transfer_guard("allow"):  # how it fetches arrays is Orbax's business
            about = {"network": self._network, **extra}
            items = ocp.args.Composite(state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(about))
            self._manager.save(int(jax.device_get(state.step)), args=items)

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The latest checkpoint that can be read, and its `extra`; None if there are none.

        Args:
          like: shapes, types and shardings of the state.

        Raises:
          UserError: if the checkpoints are of another network, or none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                about = self._manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"]
                if about.pop("network") != self._network:
                    raise UserError(
                        f"{self._folder} holds a checkpoint of another network: give another --run, or --fresh to start over"
                    )
                return self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like)))["state"], about
            except UserError:
                raise
            except Exception as error:  # whatever Orbax meets in a damaged folder
                reason = " ".join(str(error).split())[:200]
                console.print(f"the checkpoint of step {step} cannot be read: {reason}", style="yellow", markup=False)
        if steps:
            raise UserError(f"no checkpoint in {self._folder} can be read: --fresh starts over")
        return None

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
        with _full_disk_told(self._folder):
            self._manager.close()


@contextmanager
def _full_disk_told(folder: Path) -> Iterator[None]:
    """Turns what Orbax raises on a disk that fills up during a save into a line for the user."""
    try:
        yield
    except Exception as error:
        full = getattr(error, "errno", None) == errno.ENOSPC
        if full or any(words in str(error) for words in ("No space left", "RESOURCE_EXHAUSTED")):
            raise UserError(f"no room left on the disk for a checkpoint in {folder}; earlier ones are whole") from error
        raise
