"""How much a program of each kernel takes on.

Elements of a program are consecutive groups of channels, whatever the image they belong to, so a block fits any number of
channels alike. The choice is between registers and work: a kernel that holds more values repeats less, and leaves room for
fewer threads to hide behind. An Ampere, Ada or Hopper processor has 65,536 registers; the counts below are the compiler's for
Hopper (`make kernel-check`), and the other generations' lie within a few of them.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp


class Block(NamedTuple):
    """Size of one program.

    Attributes:
      elements: groups of channels in a program, one for each thread.
      tile: windows (down, across) of pooling that one element computes.
    """

    elements: int = 128
    tile: tuple[int, int] = (1, 1)

    @property
    def warps(self) -> int:
        """Of 32 threads."""
        return max(1, self.elements // 32)


BLOCKS = {
    # (kernel, bytes of a value)
    # Two windows one above the other share a row of three pixels: 15 normalizations instead of 18. 96 registers, 20 warps.
    ("norm_pool", 4): Block(tile=(2, 1)),
    # A group is eight channels here, so even one window takes 125 registers, 16 warps; two would leave 8.
    ("norm_pool", 2): Block(tile=(1, 1)),
    # Nothing to normalize, so that pixels are cheap: sharing saves loads alone, and those come from the cache.
    ("max_pool", 4): Block(tile=(2, 1)),
    ("max_pool", 2): Block(tile=(1, 1)),
}


def block_for(kernel: str, dtype: Any) -> Block:
    """The block of a kernel; those that are not in the table have no tiles and few registers to weigh."""
    return BLOCKS.get((kernel, jnp.dtype(dtype).itemsize), Block())
