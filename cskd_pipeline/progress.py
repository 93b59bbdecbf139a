"""What a long call tells its caller while it runs: how far it is, and lines of text."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Progress(NamedTuple):
    """How far a task is.

    Attributes:
        task: what is being done, such as "index train" or "epoch 3/300".
        done: units that are finished.
        total: units in all.
        unit: "image", "crop", "update", "byte" or "second".
        detail: what a bar shows beside it, such as the loss.
        note: a line for logs that cannot show a bar; "" between such lines.
    """

    task: str
    done: int
    total: int
    unit: str
    detail: str = ""
    note: str = ""


Watch = Callable[[Progress | str], None]
"""Receives progress, and lines meant for a person. It is called from the caller's thread and should return quickly."""


def silent(event: Progress | str) -> None:
    """Ignore all events."""
