"""Plots as SVG, in the colours and the font of the page they stand on.

matplotlib knows neither CSS variables nor titles: it draws in stand-in colours, which become the page's, and artists
get names, below which titles are put. Identifiers are made unique, for all plots share a page.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import io
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from cskd_pipeline.pages.markup import Markup
from cskd_pipeline.wording import percent, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLOTS_EXTRA = "pip install 'cskd-pipeline[report]'"
SERIES = 6
"""Colours of `page.css` for series; more series repeat them, in other dashes."""

_INK, _SOFT, _RULE, _ACCENT = "#010101", "#020202", "#030303", "#040404"
_STAND_INS = {_INK: "ink", _SOFT: "soft", _RULE: "rule", _ACCENT: "accent"}
_STAND_INS |= {f"#0505{number:02x}": f"series-{number}" for number in range(SERIES)}
_DASHES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.5, 2)))
_MARKED = 40
"""Points of a line up to which each is marked and has a title."""
_PIXEL = 1 / 72
"""Inches: matplotlib writes 72 units an inch, which the page shows as pixels."""
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A series of (x, y), and which of the page's series it is."""

    name: str
    points: Sequence[tuple[float, float]]
    series: int


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def line_plot(
    lines: Sequence[Line], *, x: str, y: str, share: bool = False, whole: bool = True, label: str
) -> Markup | None:
    """Lines over x (`whole` numbers or not), shares in 0..1 as per cent; None without matplotlib or points."""
    if not can_plot() or not any(line.points for line in lines):
        return None
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure, axes = _axes(380, 230)
    titles = {}
    for number, line in enumerate(lines):
        if not line.points:
            continue
        style: dict[str, Any] = {"color": f"#0505{line.series % SERIES:02x}", "clip_on": False}
        drawn = axes.plot(*zip(*line.points, strict=True), lw=1.6, ls=_DASHES[line.series // SERIES % 4], **style)[0]
        drawn.set_gid(f"line-{number}")
        titles[f"line-{number}"] = line.name
        if len(line.points) <= _MARKED:
            for at, point in enumerate(line.points):
                name = f"point-{number}-{at}"
                axes.plot(*point, "o", ms=3.6, gid=name, **style)
                value = percent(point[1]) if share else f"{point[1]:.4g}"
                titles[name] = f"{line.name}: {value} at {x} {point[0]:g}"
    axes.set_xlabel(x)
    axes.set_title(y, loc="left", fontsize=10, color=_INK, pad=10)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
    if len(shown := {epoch for line in lines for epoch, _ in line.points}) == 1:
        axes.set_xticks([*shown])
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if share:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
    axes.grid(axis="y", color=_RULE, lw=0.8)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.tick_params(length=0)
    return _svg(figure, titles, label=label)


def grid_map(share_HW: npt.NDArray[np.floating[Any]], *, name: str, label: str) -> Markup | None:
    """Shares in 0..1 on a grid of positions, darker where larger; None without matplotlib."""
    if not can_plot():
        return None
    height, width = share_HW.shape
    figure, axes = _axes(300, max(60.0, 300 * height / width * 0.8) + 30)
    figure.subplots_adjust(left=0.002, right=0.998, bottom=0.002, top=1 - 26 / (figure.get_figheight() * 72))
    titles = _cells(axes, share_HW, lambda row, column: f"row {row + 1}, column {column + 1}", numbers=width <= 8)
    axes.set_title(name, loc="left", fontsize=10, color=_INK, pad=8)
    axes.axis("off")
    return _svg(figure, titles, label=label)


def confusion_map(share_CC: npt.NDArray[np.floating[Any]], *, names: Sequence[str], label: str) -> Markup | None:
    """How often classes (rows) are taken for which (columns), in shares of the rows; None without matplotlib."""
    if not can_plot():
        return None
    count = len(names)
    side = 290 / count
    figure, axes = _axes(420, 290 + 60)
    figure.subplots_adjust(left=128 / 420, right=1 - 2 / 420, bottom=2 / 350, top=1 - 44 / 350)
    rows = [f"{names[row]} taken for {{}}" for row in range(count)]
    titles = _cells(
        axes, share_CC, lambda row, column: rows[row].format(names[column]), numbers=count <= 10, digits_only=True
    )
    axes.set_yticks(np.arange(count) + 0.5, [f"{shortened(name, 17)}  {at + 1}" for at, name in enumerate(names)])
    axes.set_xticks(np.arange(count) + 0.5, [str(at + 1) for at in range(count)])
    axes.tick_params(length=0, labelsize=min(9, side * 0.75), pad=3)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("what the teacher says", labelpad=6)
    axes.spines[:].set_visible(False)
    return _svg(figure, titles, label=label)


def _cells(
    axes: Axes, share_HW: npt.NDArray[np.floating[Any]], where: Any, *, numbers: bool, digits_only: bool = False
) -> dict[str, str]:
    """Draw cells; the names of their artists -> their titles."""
    from matplotlib.patches import Rectangle

    height, width = share_HW.shape
    titles = {}
    for row, column in np.ndindex(height, width):
        share, name = float(share_HW[row, column]), f"cell-{row}-{column}"
        known = not np.isnan(share)
        patch = Rectangle((column + 0.02, row + 0.02), 0.96, 0.96, fc=_ACCENT, lw=0, alpha=0.06 + 0.54 * share * known)
        axes.add_patch(patch).set_gid(name)
        titles[name] = f"{where(row, column)}: {percent(share)}"
        if numbers and known and (share >= 0.005 or not digits_only):
            shown = f"{100 * share:.0f}" if digits_only else f"{100 * share:.0f}%"
            axes.text(column + 0.5, row + 0.5, shown, ha="center", va="center", fontsize=9, color=_INK)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return titles


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty plot of this size in pixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * _PIXEL, height * _PIXEL), facecolor="none")
    figure.subplots_adjust(left=46 / width, right=1 - 12 / width, bottom=38 / height, top=1 - 28 / height)
    axes = figure.add_subplot(facecolor="none")
    axes.tick_params(labelsize=9, labelcolor=_SOFT)
    axes.xaxis.label.set(color=_SOFT, fontsize=9)
    axes.spines["bottom"].set(color=_RULE)
    return figure, axes


def _svg(figure: Figure, titles: dict[str, str], *, label: str) -> Markup:
    import matplotlib

    written = io.BytesIO()
    plain: Any = {"svg.fonttype": "none", "svg.hashsalt": "report", "text.parse_math": False}
    with matplotlib.rc_context(plain), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the page's font is another
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(written.getvalue())
    for child in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(child)
    _finish(root, titles, prefix=f"{hashlib.blake2b(written.getvalue() + label.encode(), digest_size=6).hexdigest()}-")
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"class": "plot", "role": "img", "aria-label": label}
    text = ElementTree.tostring(root, encoding="unicode")
    text = re.sub(r"<(/?)ns\d:", r"<\1", text)
    text = re.sub(r"\sxmlns(:ns\d)?=\"[^\"]*\"", "", text).replace("ns1:href", "href").replace("ns0:href", "href")
    for stand_in, variable in _STAND_INS.items():
        text = text.replace(stand_in, f"var(--{variable})")
    return Markup(text)


def _finish(root: ElementTree.Element, titles: dict[str, str], *, prefix: str) -> None:
    """Put titles in, keep no identifier but those that are referred to, and those with a prefix."""
    used = {*re.findall(r"url\(#([^)]+)\)", " ".join(v for node in root.iter() for v in node.attrib.values()))}
    link = f"{{{_XLINK}}}href"
    used |= {node.attrib[link].removeprefix("#") for node in root.iter() if link in node.attrib}
    for node in root.iter():
        name = node.attrib.pop("id", "")
        if name in titles:
            title = ElementTree.Element(f"{{{_SVG}}}title")
            title.text = titles[name]
            node.insert(0, title)
        if name in used:
            node.attrib["id"] = prefix + name
        if link in node.attrib:
            node.attrib[link] = f"#{prefix}{node.attrib[link].removeprefix('#')}"
        for key, value in node.attrib.items():
            if "url(#" in value:
                node.attrib[key] = value.replace("url(#", f"url(#{prefix}")
        if "style" in node.attrib:
            node.attrib["style"] = re.sub(r"(font: [^';]*?px)[^;]*", r"\1 system-ui, sans-serif", node.attrib["style"])
