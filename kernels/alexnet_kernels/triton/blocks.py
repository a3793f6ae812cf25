"""Block sizes of the kernels: the amount of work per program.

The elements of a program are consecutive groups of channels, possibly of several images, so a block size works for any number of
channels. The choice is a trade-off: a larger tile recomputes fewer values, but uses more registers per thread, which leaves fewer
concurrent threads to hide latency. A multiprocessor of an Ampere, Ada or Hopper GPU has 65,536 registers. The register counts
below are reported by the compiler for Hopper (`make kernel-check`); those of the other generations differ by a few.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp


class Block(NamedTuple):
    """Size of one program.

    Attributes:
      elements: number of groups of channels, one per thread.
      tile: number of pooling windows (rows, columns) that one element computes.
    """

    elements: int = 128
    tile: tuple[int, int] = (1, 1)

    @property
    def warps(self) -> int:
        """Number of warps of 32 threads."""
        return max(1, self.elements // 32)


BLOCKS = {
    # Keys are (kernel, bytes per value).
    # Vertically neighboring windows share a row of three pixels: 15 normalizations instead of 18. 96 registers, 20 warps.
    ("norm_pool", 4): Block(tile=(2, 1)),
    # A group has eight channels here, so one window already needs 125 registers (16 warps); two would leave 8 warps.
    ("norm_pool", 2): Block(tile=(1, 1)),
    # Without normalization, a tile saves only loads, and repeated loads hit the cache.
    ("max_pool", 4): Block(tile=(2, 1)),
    ("max_pool", 2): Block(tile=(1, 1)),
}


def block_for(kernel: str, dtype: Any) -> Block:
    """Return the block size of a kernel.

    Kernels that are not in `BLOCKS` compute no tiles and need few registers, so they use the default.
    """
    return BLOCKS.get((kernel, jnp.dtype(dtype).itemsize), Block())
