"""The page: one HTML file that needs no network and no scripts."""

from __future__ import annotations

import dataclasses
from importlib.resources import files

import cskd_pipeline
from cskd_pipeline.pages.markup import Markup, element, note, paragraph
from cskd_pipeline.pages.plots import PLOTS_EXTRA

_HEAD = '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
_SCREEN = '<meta name="viewport" content="width=device-width, initial-scale=1">\n'


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A store, or several runs: its heading and what stands below."""

    heading: str
    blocks: list[Markup]


def page(parts: list[Part], *, title: str, plots: bool) -> str:
    """The text of the HTML file; `plots` is whether matplotlib could draw them."""
    style = element("style", Markup("\n" + (files("cskd_pipeline.pages") / "page.css").read_text()))
    body = [element("h1", title), element("p", f"Written by cskd-pipeline {cskd_pipeline.__version__}.", class_="lead")]
    if not plots:
        body.append(note(f"The plots are left out, for they need matplotlib: {PLOTS_EXTRA} adds it."))
    if len(parts) > 1:
        links = [element("li", element("a", part.heading, href=f"#part-{at}")) for at, part in enumerate(parts)]
        body.append(element("nav", element("ul", *links)))
    for at, part in enumerate(parts):
        heading = [element("h2", part.heading, id=f"part-{at}")] if len(parts) > 1 else []
        body.append(element("section", *heading, *part.blocks))
    if not parts:
        body.append(paragraph("There is nothing to show."))
    return f"{_HEAD}{_SCREEN}{element('title', title)}\n{style}\n{element('body', *body)}\n</html>\n"
