"""Markdown of text that is not trusted: it can end neither a cell nor a fence."""

from __future__ import annotations

import re


def line(value: object) -> str:
    """One line of printable characters."""
    text = " ".join(str(value).split())
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def code(value: object) -> str:
    """A value as code, safe in a paragraph, a heading or a cell."""
    text = "unknown" if value is None else line(value) or "none"
    if re.search(r"[`|\\]", text) is None:
        return f"`{text}`"
    return "<code>" + "".join(letter if letter.isalnum() else f"&#{ord(letter)};" for letter in text) + "</code>"


def fenced(text: str, language: str) -> list[str]:
    """A block of code, in which no line begins with a backtick."""
    return [f"```{language}", *text.split("\n"), "```"]


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]
