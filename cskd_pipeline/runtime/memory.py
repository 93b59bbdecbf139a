"""Reused memory: the first touch of a fresh page costs more than writing it."""

from __future__ import annotations

import math
import weakref
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class ReusedMemory:
    """Gives tensors whose memory comes back when the last tensor that shares it is gone.

    Nothing that somebody still holds is ever given out again: keeping many tensors merely gets fresh memory.
    """

    def __init__(self, *, kept: int = 3, pinned: bool = False) -> None:
        """Keep up to `kept` free blocks of the latest size; `pinned`: page-locked ones, which torch itself keeps."""
        self._pinned = pinned
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=kept)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """An uninitialised contiguous tensor on the CPU."""
        if self._pinned:
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        if 0 in shape:
            return torch.empty(shape, dtype=dtype)
        block = self._block(math.prod(shape) * dtype.itemsize)
        # A tensor holds the array that it is made from, and so do all that share its memory: views, and what autograd
        # saves. Each use gets an array of its own, whose end is the end of them all.
        lent = block.view()
        weakref.finalize(lent, self._free.append, block).atexit = False
        return torch.from_numpy(lent).view(dtype).view(shape)

    def _block(self, size: int) -> NDArray[np.uint8]:
        while self._free:
            try:
                block = self._free.pop()
            except IndexError:  # another thread took the last one
                break
            if block.size == size:
                return block
        return np.empty(size, np.uint8)
