"""Completed epochs and validation errors of a run, stored in the metadata of its checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class History:
    """Completed epochs of a run, their errors, and the time spent on it.

    Attributes:
      epochs: number of completed epochs.
      errors: validation top-1 error by epoch, of those that were evaluated.
      training_error: sum of the training top-1 errors of the current epoch's batches, divided by the number of its steps.
      seconds: time spent on the run before it was resumed.
    """

    epochs: int = 0
    errors: Mapping[int, float] = field(default_factory=dict)
    training_error: float = 0.0
    seconds: float = 0.0

    def after_epoch(self, error: float | None) -> "History":
        """Return the history after one more epoch.

        Args:
          error: its validation top-1 error; None if it was not evaluated.
        """
        epochs = self.epochs + 1
        errors = self.errors if error is None else {**self.errors, epochs: error}
        return replace(self, epochs=epochs, errors=errors, training_error=0.0)

    def best_epoch(self) -> int | None:
        """Return the epoch with the smallest validation error, the latest such epoch if there are several; None before any."""
        return max((-error, epoch) for epoch, error in self.errors.items())[1] if self.errors else None

    def to_json(self, seconds: float) -> dict[str, Any]:
        """Return the metadata of a checkpoint.

        Args:
          seconds: time spent on the run.
        """
        errors = [self.errors.get(epoch) for epoch in range(1, self.epochs + 1)]
        return {"seconds": seconds, "errors": errors, "training_error": self.training_error}

    @classmethod
    def from_json(cls, metadata: dict[str, Any]) -> "History":
        """Return the history from the metadata of a checkpoint, which has an error, or None, for every epoch."""
        errors = {epoch: error for epoch, error in enumerate(metadata["errors"], 1) if error is not None}
        return cls(len(metadata["errors"]), errors, metadata["training_error"], metadata["seconds"])
