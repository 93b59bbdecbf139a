"""File names are UTF-8 text in this project, whatever locale Python runs in."""

from __future__ import annotations

import os


def utf8(name: str | os.PathLike[str]) -> str:
    """A name as the operating system gave it, read as UTF-8; bytes that are not UTF-8 become lone surrogates."""
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def native(name: str) -> str:
    """The inverse of `utf8`: a name in the form that Python's file functions take."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def shown(name: str) -> str:
    """A name that any UTF-8 file can hold: bytes that are not UTF-8 become escapes such as `\\xff`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
