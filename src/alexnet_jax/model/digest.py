"""Digest of parameters, by which two sets of them are compared."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def params_digest(params: Mapping[str, Any]) -> str:
    """Return the SHA-256 digest of the names, shapes and values of all arrays, in hexadecimal.

    Args:
      params: NumPy arrays in nested dictionaries, such as `tower.HostParams`.
    """
    digest = hashlib.sha256()
    for path, values in jax.tree_util.tree_leaves_with_path(params):
        digest.update(f"{jax.tree_util.keystr(path)} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
