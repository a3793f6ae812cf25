"""Snapshot of the settings of a process that the library must not change."""

import logging
import os
import signal
import sys
import threading
import warnings

from jax._src.config import config


def process_settings():
    """Return environment, hooks, log levels, warnings filters, signal handlers and values of `jax.config`."""
    names = ("absl", "asyncio", "jax", "orbax", "matplotlib")
    return {
        "environment": dict(os.environ),
        "hooks": (sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook),
        "log levels": {name: logging.getLogger(name).level for name in ("root", *names)},
        "log handlers": list(logging.root.handlers),
        "filters": list(warnings.filters),
        "signal handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "jax.config": {name: repr(value) for name, value in config.values.items()},
    }
