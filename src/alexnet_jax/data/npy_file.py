"""Reading of .npy files, and digests of arrays."""

import hashlib
from pathlib import Path

import numpy as np

from alexnet_jax.errors import UserError, one_line


def read_array(file: Path, advice: str) -> np.ndarray:
    """Read a .npy file of numbers. The arguments and errors are those of `map_array`."""
    return np.array(map_array(file, advice))


def map_array(file: Path, advice: str) -> np.memmap:
    """Map a .npy file of numbers into memory.

    Args:
      file: file to read.
      advice: end of the error message: what to do.

    Raises:
      UserError: if the file is missing, is damaged, or contains Python objects.
      OSError: if the system refuses to read it.
    """
    if file.is_fifo():  # opening it would wait forever
        raise UserError(f"cannot read {file} (it is a named pipe): {advice}")
    try:
        with open(file, "rb") as opened:
            np.lib.format.read_magic(opened)
            opened.seek(0)
            # The header is read by Python's parser, and the data must be in the file before memory is allocated for it.
            return np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"cannot read {file} (it is missing): {advice}") from error
    except OSError:  # for example, a missing permission, which is no damage
        raise
    except Exception as error:  # NumPy raises exceptions of many types on a damaged header
        reason = "it contains Python objects" if "pickle" in str(error) else one_line(error, 120)
        raise UserError(f"cannot read {file} ({reason}): {advice}") from error


def array_digest(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's values, in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
