"""File names are UTF-8 text in this project, whatever the locale that Python runs in makes of them."""

from __future__ import annotations

import os


def utf8(name: str | os.PathLike[str]) -> str:
    """A name as the operating system gave it, read as UTF-8; bytes that are none become lone surrogates."""
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def native(name: str) -> str:
    """What Python's file functions take for a name that `utf8` gave, or that a file in UTF-8 holds."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def shown(name: str) -> str:
    """A name that any UTF-8 file can hold: bytes that are no UTF-8 become escapes such as `\\xff`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
