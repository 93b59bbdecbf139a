"""A `classes.txt`: line N (from 0) names class N, in its first tab-separated field."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from cskd_pipeline.errors import DataError


def parse_class_list(text: str) -> tuple[str, ...]:
    """The class names of a class list, all different; empty lines at its end are ignored.

    Where a name occurs again (ImageNet has two kinds of "crane") the second field tells its bearers apart:
    "crane (n02012849)"; without one, the label does.
    """
    rows = [line.split("\t") for line in re.split(r"\r\n|\r|\n", text.rstrip())]
    times = Counter(row[0].strip() for row in rows)
    names = []
    for label, row in enumerate(rows):
        name = row[0].strip()
        if times[name] > 1:
            name = f"{name} ({row[1].strip() if len(row) > 1 else label})"
        names.append(name)
    return tuple(names)


def read_class_list(file: Path) -> tuple[str, ...]:
    """The class names in `file`.

    Raises:
        DataError: it cannot be read, a line is empty, or two lines are equal in both fields.
    """
    try:
        return checked_class_list(file.read_bytes(), where=str(file))
    except OSError as error:
        raise DataError(f"class list {file} cannot be read: {error}") from error


def checked_class_list(content: bytes, *, where: str) -> tuple[str, ...]:
    """The class names in the content of a class list that is called `where`.

    Raises:
        DataError: it is no text, a line is empty, or two lines are equal in both fields.
    """
    try:
        names = parse_class_list(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"class list {where} cannot be read: {error}") from error
    if names == ("",):
        raise DataError(f"class list {where} is empty; line N (from 0) names class N")
    lines: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if not name or name.startswith(" ("):
            raise DataError(f"{where} line {number} names no class; line N (from 0) names class N")
        if name in lines:
            raise DataError(f"{where} names {name!r} on lines {lines[name]} and {number}; class names must differ")
        lines[name] = number
    return names
