"""Which of a teacher's outputs are the data's classes: by WordNet id, by name, or in the order of a list."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from cskd_pipeline.errors import DataError, MismatchError, UsageError, nearest

IMAGENETS = ("imagenet-1k", "imagenet-12k", "imagenet-21k", "imagenet-21k-miil", "imagenet-22k", "imagenet-22k-ms")
"""The lists of classes that timm knows."""

NATURAL = "natural"
"""The data's classes with the numbers in their names in numeric order, as timm's reader of folders has them."""

_WORDNET = re.compile(r"(?<![^\W_])n\d{8}(?![^\W_])")
_SHOWN = 8

Forms = tuple[str, ...]
"""What a class is called: its name first, then its WordNet id or other names."""


def natural_rows(names: Sequence[str]) -> tuple[int, ...]:
    """The output of every class where outputs are as timm's reader sorts class folders: 0, 1, 2, ..., 10."""
    from timm.utils import misc

    natural_key: Any = misc.natural_key
    rows = [0] * len(names)
    for row, label in enumerate(sorted(range(len(names)), key=lambda label: natural_key(names[label]))):
        rows[label] = row
    return tuple(rows)


def output_classes(which: str, *, option: str) -> list[Forms]:
    """What the outputs of a teacher are called, in their order.

    Args:
        which: one of `IMAGENETS`, or a file whose line N (from 0) names output N in tab-separated columns; a .json file
            may hold a list of names, or an object of them by number (alone, or under "id2label").
        option: what `which` is given by, for errors.

    Raises:
        UsageError: `which` is neither.
        DataError: the file cannot be read or names nothing.
    """
    if which in IMAGENETS:
        from timm.data import imagenet_info

        info: Any = imagenet_info.ImageNetInfo(which)
        return list(zip(info.label_descriptions(), info.label_names(), strict=True))
    path = Path(which)
    if not path.is_file():
        raise UsageError(
            f"{option} is {which!r}, which is neither a file nor one of {', '.join((*IMAGENETS, NATURAL))}"
            f"{nearest(which, [*IMAGENETS, NATURAL])}"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        forms = _from_json(json.loads(text)) if path.suffix == ".json" else _from_lines(text)
    except (OSError, ValueError) as error:
        raise DataError(f"{option} {path} names no classes ({error}); line N (from 0) must name output N") from error
    return forms


def output_rows(which: str, classes: Sequence[Forms], *, option: str) -> tuple[tuple[int, ...], int]:
    """For every class of the data the teacher's output, and how many outputs the teacher has.

    A class is looked for by its WordNet id, then by its whole name if that is a list with commas, then by the names in
    it; capitals and underscores do not count.

    Args:
        which: as `output_classes` has it, or `NATURAL`.
        classes: what the data's classes are called, by label.
        option: what `which` is given by, for errors.

    Raises:
        UsageError, DataError: as `output_classes`.
        MismatchError: classes that no output, or more than one, is called like, all of them named (of many, some); or
            two classes that would share an output.
    """
    if which == NATURAL:
        return natural_rows([forms[0] for forms in classes]), len(classes)
    outputs = output_classes(which, option=option)
    known = [_index(outputs, spell) for spell in (_ids, _whole, _names)]
    rows, missing, ambiguous = [], [], []
    for forms in classes:
        found = _outputs_of(forms, known)
        if len(found) > 1:
            ambiguous.append(f"{forms[0]} (outputs {' and '.join(_shown(row, outputs) for row in sorted(found)[:3])})")
        elif not found:
            missing.append(forms[0])
        rows += found[:1]
    shared = [(classes[rows.index(row)][0], forms[0]) for row, forms in zip(rows, classes, strict=False)]
    twice = [] if missing or ambiguous else [f"{a} and {b}" for a, b in shared if a != b]
    faults = {
        "has no class": missing,
        "has several classes called like": ambiguous,
        "has one output for": twice,
    }
    if said := [f"{what} {_some(found)}" for what, found in faults.items() if found]:
        raise MismatchError(
            f"{option} {which} {'; it '.join(said)}; name them by WordNet id in the second column of the data's "
            "classes.txt, or give a file whose line N (from 0) names output N in the data's words"
        )
    return tuple(rows), len(outputs)


def _outputs_of(forms: Forms, known: Sequence[dict[str, list[int]]]) -> list[int]:
    for index, spell in zip(known, (_ids, _whole, _names), strict=True):
        for form in forms:
            if found := sorted({row for key in spell(form) for row in index.get(key, ())}):
                return found
    return []


def _index(outputs: Sequence[Forms], spell: Callable[[str], Iterable[str]]) -> dict[str, list[int]]:
    index: dict[str, list[int]] = defaultdict(list)
    for row, forms in enumerate(outputs):
        for form in forms:
            for key in spell(form):
                if row not in index[key]:
                    index[key].append(row)
    return index


def _ids(form: str) -> Iterable[str]:
    return _WORDNET.findall(form)


def _whole(form: str) -> Iterable[str]:
    return (_plain(form),) if "," in form else ()


def _names(form: str) -> Iterable[str]:
    return (_plain(part) for part in form.split(","))


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _from_lines(text: str) -> list[Forms]:
    forms = [tuple(part.strip() for part in line.split("\t") if part.strip()) for line in text.rstrip().splitlines()]
    if empty := [number for number, names in enumerate(forms, start=1) if not names]:
        raise ValueError(f"line {empty[0]} is empty")
    if not forms:
        raise ValueError("it is empty")
    return forms


def _from_json(found: object) -> list[Forms]:
    if isinstance(found, dict):
        found = found.get("id2label", found)
    if isinstance(found, dict):
        numbered = {int(number): names for number, names in found.items()}
        if sorted(numbered) != [*range(len(numbered))]:
            raise ValueError("its keys are not the numbers from 0 on")
        found = [numbered[number] for number in range(len(numbered))]
    if not isinstance(found, list) or not found:
        raise ValueError("it is neither a list of names nor an object of names by number")
    return [tuple(map(str, names)) if isinstance(names, list) and names else (str(names),) for names in found]


def _shown(row: int, outputs: Sequence[Forms]) -> str:
    return " ".join(map(str, (row, *outputs[row][1:2])))


def _some(items: Sequence[str]) -> str:
    rest = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
