"""Blocks of HTML. Text is escaped wherever it is put in; only `Markup` is taken as it is."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from cskd_pipeline.wording import percent


class Markup(str):
    """HTML that was made here, out of escaped text."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Any value as HTML; what cannot be printed, as names in a damaged store, is shown as �."""
    if isinstance(value, Markup):
        return value
    plain = "".join(
        letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in str(value)
    )
    return Markup(html.escape(plain))


def element(tag: str, *content: object, **attributes: object) -> Markup:
    """An element; attributes are named `class_`, `aria_label`, ..., and those that are None are left out."""
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{given}>{''.join(map(text, content))}</{tag}>")


def paragraph(*content: object) -> Markup:
    """A paragraph of running text."""
    return element("p", *content)


def note(*content: object) -> Markup:
    """A line on what is missing or wrong."""
    return element("p", *content, class_="note")


def code(value: object) -> Markup:
    """A name, path or number as code."""
    return element("code", value)


def swatch(colour: int | str) -> Markup:
    """The small square that stands for a colour of `page.css` (a number: of a series) in a legend."""
    return element("span", "", class_="swatch", style=f"background:var(--{_colour(colour)})")


def _colour(colour: int | str) -> str:
    return f"series-{colour}" if isinstance(colour, int) else colour


def legend(entries: Iterable[tuple[int | str, object]]) -> Markup:
    """What colours stand for."""
    items = [element("li", swatch(colour), " ", name) for colour, name in entries]
    return element("ul", *items, class_="legend")


def figure(picture: object, caption: object, *, class_: str | None = None) -> Markup:
    """A picture over what it shows."""
    return element("figure", picture, element("figcaption", caption), class_=class_)


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, numbers: Iterable[int] = ()) -> Markup:
    """A table with a row of headings; columns with these `numbers` are aligned to the right.

    On narrow pages every row becomes a list in which the cells repeat their headings.
    """
    right = {*numbers}
    kinds = ["number" if column in right else None for column in range(len(head))]
    top = element("tr", *(element("th", cell, class_=kinds[at], scope="col") for at, cell in enumerate(head)))
    body = [
        element(
            "tr",
            *(
                element("td", element("span", cell), class_=kinds[at], data_head=head[at] if at else None)
                for at, cell in enumerate(row)
            ),
        )
        for row in rows
    ]
    return element("table", element("thead", top), element("tbody", *body))


def facts(entries: Iterable[tuple[object, object]]) -> Markup:
    """Names and their values, below one another."""
    return element("dl", *(Markup(element("dt", name) + element("dd", value)) for name, value in entries))


def folded(summary: object, *content: object) -> Markup:
    """Details that open on a click, and in print."""
    return element("details", element("summary", summary), *content)


def bar(share: float, *, colour: int | str = "accent") -> Markup:
    """A share in 0..1 as a bar and as a number; - where there is none."""
    if share != share:
        return text("-")
    width = 100 * min(max(share, 0.0), 1.0)
    filled = element("rect", width=f"{width:.1f}", height=8, style=f"fill:var(--{_colour(colour)})")
    trough = element("rect", width=100, height=8, class_="trough")
    drawn = element("svg", trough, filled, viewBox="0 0 100 8", class_="bar", aria_hidden="true")
    return Markup(element("span", drawn, element("span", percent(share), class_="value"), class_="measure"))
