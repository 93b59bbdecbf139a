"""A crop, and its dense labels drawn over it at several ratios."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from cskd_pipeline.pages.examples import STEPS, Example
from cskd_pipeline.pages.markup import Markup, element, figure, legend, text
from cskd_pipeline.pages.plots import SERIES
from cskd_pipeline.ratio import RATIO_STEPS
from cskd_pipeline.wording import counted, listed, percent

_SHADE = 0.42
"""Opacity of the colours over the crop."""


def crop_figure(example: Example, grid: tuple[int, int], class_name: Callable[[int], str]) -> Markup:
    """The crop alone, then with its winners at each of `STEPS`, over a legend and a caption."""
    local_P, global_ = example.winner_KW[0, 1:], int(example.winner_KW[0, 0])
    counts = {int(one): int((example.winner_KW[:, 1:] == one).sum()) for one in np.unique(example.winner_KW[:, 1:])}
    shown = sorted(counts, key=lambda one: (one != global_, -counts[one], one))
    colour = {one: at % SERIES for at, one in enumerate(shown)}
    name = (
        f"crop-{hashlib.blake2b(f'{example.seed} {example.sample} {example.key}'.encode(), digest_size=5).hexdigest()}"
    )
    views = [_view(_picture(example, name), "the crop", example.side)]
    for at, step in enumerate(STEPS):
        marks = _marks(example, at, grid, shown, colour, class_name)
        views.append(_view([element("use", href=f"#{name}"), *marks], f"r = {step / RATIO_STEPS:g}", example.side))
    keys = legend((colour[one], f"{at} {class_name(one)}{_sure(example, one)}") for at, one in enumerate(shown, 1))
    local = {int(one): int((local_P == one).sum()) for one in np.unique(local_P)}
    return figure(Markup(element("div", *views, class_="views") + keys), _caption(example, local, global_, class_name))


def _sure(example: Example, winner: int) -> str:
    """The mean probability of a class over the places that it wins."""
    if example.probability_KW is None:
        return ""
    return f" ({percent(float(example.probability_KW[:, 1:][example.winner_KW[:, 1:] == winner].mean()))})"


def _picture(example: Example, name: str) -> list[Markup]:
    return [element("image", id=name, href=example.address, width=example.side, height=example.side)]


def _view(content: Sequence[Markup], below: str, side: int) -> Markup:
    drawn = element("svg", *content, viewBox=f"0 0 {side} {side}", role="img", aria_label=below)
    return element("div", drawn, element("span", below), class_="view")


def _marks(
    example: Example,
    at: int,
    grid: tuple[int, int],
    shown: Sequence[int],
    colour: dict[int, int],
    class_name: Callable[[int], str],
) -> list[Markup]:
    """A coloured cell with the class's number at every position, which says name and probability when pointed at."""
    height, width = example.side / grid[0], example.side / grid[1]
    marks = []
    for position, winner in enumerate(example.winner_KW[at, 1:].tolist()):
        row, column = divmod(position, grid[1])
        said = f"row {row + 1}, column {column + 1}: {class_name(winner)}"
        if example.probability_KW is not None:
            said += f", {percent(float(example.probability_KW[at, 1 + position]))}"
        box = element(
            "rect",
            x=f"{column * width:.2f}",
            y=f"{row * height:.2f}",
            width=f"{width:.2f}",
            height=f"{height:.2f}",
            style=f"fill:var(--series-{colour[winner]});fill-opacity:{_SHADE};stroke:#fff6;stroke-width:.5",
        )
        number = element(
            "text",
            str(shown.index(winner) + 1),
            x=f"{(column + 0.5) * width:.2f}",
            y=f"{(row + 0.5) * height:.2f}",
            font_size=f"{0.42 * min(width, height):.1f}",
        )
        marks.append(element("g", element("title", said), box, number))
    return marks


def _caption(example: Example, local: dict[int, int], global_: int, class_name: Callable[[int], str]) -> Markup:
    true = class_name(example.label)
    if example.partner != example.label and 0 < example.weight < 1:
        true = f"{percent(example.weight)} {true} and {percent(1 - example.weight)} {class_name(example.partner)}"
    sure = None if example.probability_KW is None else float(example.probability_KW[0, 0])
    positions = sum(local.values())
    others = sorted((one for one in local if one != global_), key=lambda one: -local[one])
    agree = local.get(global_, 0)
    said = f"True: {true}. Global label: {class_name(global_)}{f' at {percent(sure)}' if sure is not None else ''}, "
    if agree == positions:
        said += "and the local label of every position: r changes nothing."
    else:
        named = listed([f"{class_name(one)} {local[one]}" for one in others[:3]])
        rest = f", and {counted(len(others) - 3, 'other class', 'other classes')}" if len(others) > 3 else ""
        half = int((example.winner_KW[1, 1:] == global_).sum())
        said += f"the local one of {agree} of {positions} positions (the others: {named}{rest}), of {half} at r = 0.5."
    return text(said)
