"""Incremental result file and time budget of gpu_check.py."""

import json
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PARTS = ("correctness", "operations", "network", "training")
START = time.monotonic()
"""Time at which this module was imported."""


def print_now(line: str) -> None:
    """Print a line, prefixed with the seconds since the start of the process, and flush."""
    print(f"{time.monotonic() - START:4.0f} s  {line}", flush=True)


class Report:
    """Results of a check, in a JSON file that is rewritten after every change.

    Args:
      file: JSON file.
      **about: top-level entries that describe the check.

    Attributes:
      results: rows of results by part, and the lists `failed` and `skipped`.
    """

    def __init__(self, file: Path, **about: Any):
        self.results: dict[str, Any] = {**about, "failed": [], "skipped": []}
        self._file = file
        self._lock = threading.RLock()
        self.set()

    @property
    def succeeded(self) -> bool:
        return not self.results["failed"]

    def set(self, **values: Any) -> None:
        """Set top-level entries, and rewrite the file atomically."""
        with self._lock:
            self.results.update(values)
            partial_file = self._file.with_name(f".{self._file.name}.partial")
            partial_file.write_text(json.dumps(self.results, indent=1) + "\n")
            partial_file.replace(self._file)

    def add(self, part: str, key: dict[str, Any], **values: Any) -> dict[str, Any]:
        """Add values to the row of `part` that contains `key`, and return the row; dict values are merged with existing ones."""
        with self._lock:
            rows = self.results.setdefault(part, [])
            row = next((each for each in rows if each.items() >= key.items()), None)
            if row is None:
                row = dict(key)
                rows.append(row)
            for name, value in values.items():
                row[name] = {**row.get(name, {}), **value} if isinstance(value, dict) else value
            self.set()
            return row

    def fail(self, name: str, reason: str, details: str = "") -> None:
        print_now(f"FAILED {name}: {reason}")
        with self._lock:
            self.set(failed=[*self.results["failed"], {"name": name, "reason": reason, "traceback": details}])

    def skip(self, names: Sequence[str], reason: str) -> None:
        print_now(f"skipped {', '.join(names)}: {reason}")
        with self._lock:
            self.set(skipped=[*self.results["skipped"], *({"name": name, "reason": reason} for name in names)])


@dataclass(frozen=True)
class Measurement:
    """Single measurement of the check.

    Attributes:
      part: part of the check; the measurements of a part take similar times.
      name: name within the part, shown if the measurement fails or is skipped.
      run: function that measures and adds the results to the report.
    """

    part: str
    name: str
    run: Callable[[], None] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.part} {self.name}".strip()


class Skipped(Exception):
    """Raised by a measurement that is not possible on this machine, with the reason."""


@dataclass(frozen=True)
class TimeBudget:
    """Time limit of the process.

    Attributes:
      seconds: time limit, counted from the import of this module.
    """

    seconds: float

    @property
    def remaining(self) -> float:
        return START + self.seconds - time.monotonic()


def run_measurements(
    measurements: Sequence[Measurement],
    report: Report,
    budget: TimeBudget,
    *,
    device_error: Callable[[], str | None] = lambda: None,
) -> None:
    """Run measurements in order within a time budget.

    A measurement is skipped if the remaining time is shorter than the longest measurement of the same part so far. If a
    measurement is still running when the budget runs out, the report is completed and the process exits, with status 1 after a
    failure and 0 otherwise. The entry "running" of the report is the name of the measurement during which a process was killed.

    Args:
      measurements: measurements to run.
      report: report to which failures and skipped measurements are added.
      budget: time budget.
      device_error: called after a failure; returns the reason why the device cannot be used any more, or None. If there is one,
        the other measurements are skipped, because all would fail.
    """
    reason = f"the time budget of {budget.seconds / 60:g} minutes ran out; raise --minutes"
    pending, out_of_time = deque(measurements), list[str]()

    def end_process() -> None:
        report.skip([*out_of_time, *map(str, pending)], reason)
        report.set(seconds=round(budget.seconds, 1))
        os._exit(not report.succeeded)

    watchdog = threading.Timer(max(0, budget.remaining), end_process)
    watchdog.daemon = True
    watchdog.start()
    longest: dict[str, float] = {}
    while pending:
        measurement = pending[0]
        start = time.monotonic()
        if budget.remaining < longest.get(measurement.part, 0):
            out_of_time.append(str(measurement))
        else:
            report.set(running=str(measurement))
            failures = len(report.results["failed"])
            _run(measurement, report)
            if len(report.results["failed"]) > failures and (error := device_error()):
                pending.popleft()
                report.skip(
                    [str(each) for each in pending], f"the device failed in {measurement} ({error}); run other parts with --only"
                )
                break
            longest[measurement.part] = max(longest.get(measurement.part, 0), time.monotonic() - start)
        pending.popleft()
    watchdog.cancel()
    if out_of_time:
        report.skip(out_of_time, reason)
    report.set(seconds=round(budget.seconds - budget.remaining, 1), running=None)


def _run(measurement: Measurement, report: Report) -> None:
    try:
        measurement.run()
    except Skipped as skipped:
        report.skip([str(measurement)], str(skipped))
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [""])[0]
        report.fail(str(measurement), f"{type(error).__name__}: {first_line}", traceback.format_exc())
