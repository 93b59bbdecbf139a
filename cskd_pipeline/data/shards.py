"""Shard patterns: globs and braces, split into a fixed root and the rest."""

from __future__ import annotations

from pathlib import Path, PurePath

from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.storage import is_address

SPLIT_FIELD = "{split}"
_WILD = "*?["
_MAGIC = _WILD + "{"


class NoShardsError(DataError):
    """A pattern names no file, or one that is missing."""


def is_pattern(text: str) -> bool:
    """True where `text` names tar files rather than a folder or a manifest."""
    return any(letter in text for letter in _MAGIC) or ".tar" in PurePath(text).suffixes


def is_wild(text: str) -> bool:
    """Whether `text` may name more than one file."""
    return any(letter in text for letter in _WILD)


def root_and_pattern(text: str) -> tuple[Path, str]:
    """The leading folders of `text` that hold no wildcard, and the rest: the part that is a pattern."""
    parts = PurePath(text).parts
    fixed = 0
    while fixed < len(parts) - 1 and not any(letter in parts[fixed] for letter in _MAGIC):
        fixed += 1
    return Path(*parts[:fixed]), str(PurePath(*parts[fixed:]))


def alternatives(pattern: str) -> list[str]:
    """What the braces of a pattern stand for, such as `{000..009}` and `{a,b}`.

    Raises:
        UsageError: they do not balance, or the pattern is an address.
    """
    from braceexpand import braceexpand

    if is_address(pattern):
        raise UsageError(
            f"{pattern!r} is an address; the path of a split is relative to the root: give that one (root)"
        )
    try:
        return list(braceexpand(pattern))
    except ValueError as error:
        raise UsageError(f"the braces of pattern {pattern!r} do not balance") from error


def expand_shards(root: Path, pattern: str) -> list[Path]:
    """The files under `root` that `pattern` names, sorted within each brace alternative.

    Braces are expanded first; every alternative without a wildcard must exist.

    Raises:
        UsageError: as `alternatives`.
        NoShardsError: a file that the braces name is missing, or nothing matches.
    """
    found: dict[Path, None] = {}
    for alternative in alternatives(pattern):
        if is_wild(alternative):
            folder, rest = root_and_pattern(alternative)
            matches = sorted((root / folder).glob(rest))
        elif (root / alternative).is_file():
            matches = [root / alternative]
        else:
            raise NoShardsError(f"{root / alternative} does not exist, but the pattern {pattern!r} names it")
        found.update(dict.fromkeys(matches))
    if not found:
        raise NoShardsError(f"no file under {root.absolute()} matches {pattern!r}; check the folder and the pattern")
    return list(found)
