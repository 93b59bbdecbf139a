"""Memory that is used again: the first touch of a fresh page costs more than writing it."""

from __future__ import annotations

import math
import weakref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class ReusedMemory:
    """Gives tensors whose memory comes back when the last tensor that shares it is gone.

    Nothing that somebody still holds is ever given out again: whoever keeps many tensors merely gets fresh memory.
    """

    def __init__(self, *, kept: int = 3, pinned: bool = False) -> None:
        """Keeps up to `kept` blocks of each size; `pinned`: page-locked ones, which torch itself keeps for reuse."""
        self._kept, self._pinned = kept, pinned
        self._blocks: dict[int, list[tuple[NDArray[np.uint8], weakref.ref[NDArray[np.uint8]]]]] = {}

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """An uninitialised contiguous tensor on the CPU."""
        if self._pinned:
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        if 0 in shape:
            return torch.empty(shape, dtype=dtype)
        size = math.prod(shape) * dtype.itemsize
        # A tensor holds the array that it is made from, and so do all that share its memory: views, and what autograd
        # saves. Each use gets an array of its own, whose end is the end of them all.
        block = self._free(size)
        lent = block.view()
        self._blocks[size].append((block, weakref.ref(lent)))
        return torch.from_numpy(lent).view(dtype).view(shape)

    def _free(self, size: int) -> NDArray[np.uint8]:
        blocks = self._blocks.setdefault(size, [])
        for at, (block, user) in enumerate(blocks):
            if user() is None:
                del blocks[at]
                return block
        if len(blocks) >= self._kept:
            del blocks[0]
        return np.empty(size, np.uint8)
