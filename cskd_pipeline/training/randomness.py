"""Dropout and drop path without random state: every micro-step starts from a seed that names it."""

from __future__ import annotations

import hashlib

import torch


def seed_micro_step(seed: int, *, update: int, micro: int, rank: int) -> None:
    """Seed torch on all devices from these four numbers alone.

    A run that is resumed at any update draws what the uninterrupted run drew, and no generator state is stored.
    """
    named = f"{seed}/{update}/{micro}/{rank}".encode()
    torch.manual_seed(int.from_bytes(hashlib.blake2b(named, digest_size=8).digest(), "little") >> 1)
