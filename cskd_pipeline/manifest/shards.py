"""Shard patterns: globs and braces, split into a fixed root and the rest."""

from __future__ import annotations

from pathlib import Path, PurePath

from cskd_pipeline.errors import DataError, UsageError

SPLIT_FIELD = "{split}"
_MAGIC = "*?[{"


def is_pattern(text: str) -> bool:
    """True where `text` names tar files rather than a folder or a manifest."""
    return any(letter in text for letter in _MAGIC) or ".tar" in PurePath(text).suffixes


def root_and_pattern(text: str) -> tuple[Path, str]:
    """The leading folders of `text` that hold no wildcard, and the rest: the part that is a pattern."""
    parts = PurePath(text).parts
    fixed = 0
    while fixed < len(parts) - 1 and not any(letter in parts[fixed] for letter in _MAGIC):
        fixed += 1
    return Path(*parts[:fixed]), str(PurePath(*parts[fixed:]))


def expand_shards(root: Path, pattern: str) -> list[Path]:
    """The files under `root` that `pattern` names, sorted within each brace alternative.

    `{000..009}` and `{a,b}` are expanded first; every alternative without a wildcard must exist.

    Raises:
        UsageError: the braces do not balance, or the pattern is an address rather than a path.
        DataError: a file that the braces name is missing, or nothing matches.
    """
    from braceexpand import braceexpand

    if "://" in pattern or ":/" in str(root):
        raise UsageError(f"{pattern!r} is an address; only local tar files are read: copy the shards to a disk first")
    try:
        alternatives = list(braceexpand(pattern))
    except ValueError as error:
        raise UsageError(f"the braces of pattern {pattern!r} do not balance") from error
    found: dict[Path, None] = {}
    for alternative in alternatives:
        if any(letter in alternative for letter in "*?["):
            folder, rest = root_and_pattern(str(root / alternative))
            matches = sorted(folder.glob(rest))
        elif (root / alternative).is_file():
            matches = [root / alternative]
        else:
            raise DataError(f"{root / alternative} does not exist, but the pattern {pattern!r} names it")
        found.update(dict.fromkeys(matches))
    if not found:
        raise DataError(f"no file under {root.absolute()} matches {pattern!r}; check the folder and the pattern")
    return list(found)
