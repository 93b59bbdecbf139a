"""Class lists: line N (from 0) names class N, in one column or several, separated by tabs."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Self

from cskd_pipeline.errors import DataError, nearest

CLASSES_NAME = "classes.txt"
_SHOWN = 5
_MOST_UNKNOWN = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class ClassList:
    """What the classes are called, by label.

    Attributes:
        rows: of each class its name, and what else it may be called (a WordNet id, ...), the same in every row.
        where: what it is called in messages.
    """

    rows: tuple[tuple[str, ...], ...] = ()
    where: str = CLASSES_NAME

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def parse(cls, content: bytes, *, where: str) -> Self:
        """The class list in the content of a file that is called `where`. Empty lines at its end are ignored.

        Raises:
            DataError: it is no text, a line is empty, or two lines are equal in both of their first fields.
        """
        try:
            rows = _rows(content.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise DataError(f"class list {where} cannot be read: {error}") from error
        if rows == (("",),):
            raise DataError(f"class list {where} is empty; line N (from 0) names class N")
        listed = cls(rows, where)
        lines: dict[str, int] = {}
        for number, (row, name) in enumerate(zip(rows, listed.names, strict=True), start=1):
            if not row[0]:
                raise DataError(f"{where} line {number} names no class; line N (from 0) names class N")
            if name in lines:
                raise DataError(f"{where} names {name!r} on lines {lines[name]} and {number}; class names must differ")
            lines[name] = number
        return listed

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each class.

        Where a name occurs again (ImageNet has two kinds of "crane") the second field tells its bearers apart:
        "crane (n02012849)"; without one, the label does.
        """
        times = Counter(row[0] for row in self.rows)
        return tuple(
            f"{row[0]} ({row[1] if len(row) > 1 else label})" if times[row[0]] > 1 else row[0]
            for label, row in enumerate(self.rows)
        )

    @property
    def spellings(self) -> frozenset[str]:
        """Whatever a class may be called."""
        return frozenset(self.names).union(*self.rows)

    def labels_of(self, texts: Collection[str], *, what: str = "labels") -> dict[str, int]:
        """The label of each text: by the first column that names them all, else each by the one line that it is on.

        Args:
            texts: names, or entries of another column.
            what: what they are, in the plural.

        Raises:
            DataError: some are on no line, or on several; the message lists them.
        """
        columns = self._columns()
        for column in columns:
            if all(len(column.get(text, ())) == 1 for text in texts):
                return {text: column[text][0] for text in texts}
        anywhere = {text: sorted({line for column in columns for line in column.get(text, ())}) for text in texts}
        unknown = [text for text, lines in anywhere.items() if not lines]
        several = [
            f"{text!r} (lines {', '.join(str(line + 1) for line in lines)})"
            for text, lines in anywhere.items()
            if len(lines) > 1
        ]
        if unknown:
            raise DataError(self.unlisted(unknown, what=what))
        if several:
            raise DataError(
                f"{len(several)} {what} stand on several lines of {self.where}: {some(several)}; give each class a "
                "name of its own there, in one column"
            )
        return {text: lines[0] for text, lines in anywhere.items()}

    def unlisted(self, texts: Sequence[str], *, what: str = "labels") -> str:
        """What to say of texts that are on no line."""
        close = nearest(texts[0], sorted(self.spellings)) if len(texts) == 1 else ""
        shown = some([repr(text) for text in texts])
        return (
            f"{len(texts)} {what} are not in {self.where}: {shown}{close}; correct them, or the list of the "
            "classes, whose line N (from 0) names class N"
        )

    def of_folders(self, folders: Collection[str]) -> Self:
        """The same list, the names of class folders in its first column; a class without one keeps its name.

        Raises:
            DataError: a folder is on no line or on several, or two are on one.
        """
        labels = self.labels_of(folders, what="class folders")
        folder_of = {label: folder for folder, label in labels.items()}
        if len(folder_of) < len(labels):
            twice = [folder for folder, label in labels.items() if folder_of[label] != folder]
            other = folder_of[labels[twice[0]]]
            raise DataError(
                f"class folders {twice[0]!r} and {other!r} are both on line {labels[twice[0]] + 1} of {self.where}; a "
                "class has one folder"
            )
        column = next((self.rows[label].index(name) for name, label in labels.items() if name in self.rows[label]), 0)
        rows = []
        for label, (row, name) in enumerate(zip(self.rows, self.names, strict=True)):
            first = folder_of.get(label) or (row[column] if 0 < column < len(row) and row[column] else name)
            rows.append((first, *(entry for entry in row if entry != first)))
        found = type(self)(tuple(rows), self.where)
        if len(set(found.names)) < len(rows) or found.names != tuple(row[0] for row in rows):
            double = [name for name, times in Counter(row[0] for row in rows).items() if times > 1]
            raise DataError(
                f"{self.where} names {some([repr(name) for name in double])} twice; class names must differ"
            )
        return found

    def _columns(self) -> list[dict[str, list[int]]]:
        """From text to lines: by name, and by the entries of every column."""
        columns: list[dict[str, list[int]]] = [{} for _ in range(1 + max(map(len, self.rows), default=0))]
        for label, (name, row) in enumerate(zip(self.names, self.rows, strict=True)):
            for column, entry in zip(columns, (name, *row), strict=False):
                if entry:
                    column.setdefault(entry, []).append(label)
        return columns


class LabelTexts:
    """Labels as files state them, in decimal or by name, and what they come to.

    Until all are known a name has a negative number: it is the names together that say of which column they are.
    """

    def __init__(self, classes: ClassList, *, doubt: bool = False) -> None:
        """Names are those of `classes`, if that lists any. With `doubt`, a number that is a class's name too, of
        another label, is refused even where there are only numbers.
        """
        self._classes, self._doubt = classes, doubt
        self._spellings = classes.spellings
        self._names: dict[str, int] = {}
        self._unknown: dict[str, str] = {}

    def number(self, text: str, *, where: str) -> int:
        """The label, or a number that stands for a name until `settle`.

        Raises:
            DataError: it is a name, and there is no class list; the message begins with `where`.
        """
        if text.isascii() and text.isdecimal():
            return int(text)
        if not self._classes or not text:
            raise no_label(text, where=where)
        if text not in self._spellings:
            self._unknown.setdefault(text, where)
            if len(self._unknown) >= _MOST_UNKNOWN:
                self.require_known()
        return -1 - self._names.setdefault(text, len(self._names))

    def require_known(self) -> None:
        """Raise DataError if names came that are not in the class list; the message lists them."""
        if self._unknown:
            texts = list(self._unknown)
            raise DataError(f"{self._unknown[texts[0]]} is {texts[0]!r}: {self._classes.unlisted(texts)}")

    def settle(self, labels: list[int]) -> None:
        """Put labels in the place of the numbers that stand for names.

        Raises:
            DataError: names are unknown or ambiguous, or a number may be meant for a name.
        """
        self.require_known()
        if not self._names and not (self._doubt and self._classes):
            return
        own = self._classes.labels_of(self._names)
        columns = self._classes._columns()
        for label in sorted({label for label in labels if label >= 0}):
            named = {line for column in columns[:2] for line in column.get(str(label), ())}
            if named - {label}:
                line = min(named - {label})
                raise DataError(
                    f"the label {label} may be the number of class {self._classes.names[label]!r} or the name of "
                    f"class {line}, by {self._classes.where}; state all labels as numbers, under other names of the "
                    "classes"
                    if label < len(self._classes)
                    else f"the label {label} is the name of class {line}, by {self._classes.where}, and no number of "
                    "one; state all labels as numbers"
                )
        resolved = [own[name] for name in self._names]
        for row, label in enumerate(labels):
            if label < 0:
                labels[row] = resolved[-1 - label]


def no_label(text: str, *, where: str) -> DataError:
    """The error of a text that is no label; the message begins with `where`."""
    return DataError(
        f"{where} is {text!r}; a label is a whole number in decimal, 0 or more, or a class's name where a "
        f"{CLASSES_NAME} beside the data lists these, line N (from 0) that of label N"
    )


def some(names: Sequence[str], most: int = _SHOWN) -> str:
    """The first of these names, and a mark where there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _rows(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(entry.strip() for entry in line.split("\t")) for line in re.split(r"\r\n|\r|\n", text.rstrip()))
