"""Where encoded images lie."""

from __future__ import annotations

from typing import NamedTuple

CHANGED = "the data changed after it was indexed: restore it, or index it again"


class Place(NamedTuple):
    """Where one lies.

    Attributes:
        file: the data file's name, relative to the data set's root.
        offset, length: in bytes.
    """

    file: str
    offset: int
    length: int
