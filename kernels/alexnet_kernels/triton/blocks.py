"""Block sizes: the amount of work of one program of each kernel.

The elements of a program are consecutive groups of channels, possibly of several images, so a block size suits any number of
channels. The choice is a trade-off between registers and work: a program that holds more values computes fewer of them twice,
but leaves registers for fewer threads to hide latency with. A multiprocessor of an Ampere, Ada or Hopper GPU has 65,536
registers. The register counts below are the compiler's for Hopper (`make kernel-check`); those for the other generations differ
by a few.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp


class Block(NamedTuple):
    """Size of one program.

    Attributes:
      elements: groups of channels, one for each thread.
      tile: pooling windows (vertically, horizontally) that one element computes.
    """

    elements: int = 128
    tile: tuple[int, int] = (1, 1)

    @property
    def warps(self) -> int:
        """Number of warps, of 32 threads."""
        return max(1, self.elements // 32)


BLOCKS = {
    # Keys are (kernel, bytes per value).
    # Vertically neighboring windows share a row of three pixels: 15 normalizations instead of 18. 96 registers, 20 warps.
    ("norm_pool", 4): Block(tile=(2, 1)),
    # A group has eight channels here, so one window already needs 125 registers (16 warps); two would leave 8 warps.
    ("norm_pool", 2): Block(tile=(1, 1)),
    # Without normalization, a tile saves only loads, and the repeated ones are in the cache.
    ("max_pool", 4): Block(tile=(2, 1)),
    ("max_pool", 2): Block(tile=(1, 1)),
}


def block_for(kernel: str, dtype: Any) -> Block:
    """Return the block size of a kernel.

    Kernels that are not in `BLOCKS` compute no tiles and need few registers; they use the default.
    """
    return BLOCKS.get((kernel, jnp.dtype(dtype).itemsize), Block())
