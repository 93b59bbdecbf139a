"""The tables and plots of docs/results.md, from the rows in experiments/results alone.

    python experiments/results.py --write docs/results.md

Every table goes between the marks of its name, plots go to `images` beside the page. A run counts by the head that its
model gives when it is exported. Differences are paired: students of the same seed start from the same weights and see
the same crops. Their intervals are of Student's t: what is left of all scores on a set when the means of runs and of
seeds are taken off is chance, as large for every run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats
from study import HERE, Row, read_rows

from cskd_pipeline.objectives import OBJECTIVES

sys.path.append(str(HERE.parent / "benchmarks"))
from report import markdown, replace_measured

HEADS = {"cls": "cls", "two_head": "two heads", "three_head": "three heads"}
TARGETS = ("hard", "soft", "truth", "features")
SOFT_DEFAULT = "k=6 K=48"
STYLES = ("o-", "s--", "^-.", "D:", "v-")
Rows = dict[str, list[Row]]
"""By the name of their file."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the rows")
    parser.add_argument("--write", type=Path, help="put tables between the marks of this page, plots beside it")
    arguments = parser.parse_args()
    rows = all_rows(arguments.results)
    if arguments.write:
        write(rows, arguments.write)
    else:
        for name in filter(rows.get, TABLES):
            print(f"{name}\n\n{TABLES[name](rows)}\n")


def all_rows(folder: Path) -> Rows:
    """Of every study, and of the sets."""
    return {path.stem: read_rows(path) for path in sorted(folder.glob("*.jsonl"))}


def write(rows: Rows, page: Path) -> None:
    """Put tables between the marks of a page, and plots into `images` beside it."""
    mpl.rcParams.update({"svg.hashsalt": "results", "svg.fonttype": "none", "font.size": 9})
    for name in filter(rows.get, TABLES):
        page.write_text(replace_measured(page.read_text(), TABLES[name](rows), mark=name))
    for name in filter(rows.get, PLOTS):
        figure = PLOTS[name](rows)
        figure.savefig(page.parent / "images" / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)


def exported(row: Row) -> float:
    """Per cent of the head that an exported model has."""
    head = OBJECTIVES[row["objective"]].primary_head if row["objective"] in OBJECTIVES else "two_head"
    return row["top1"][head if head in row["top1"] else "cls"]


def grouped(rows: Iterable[Row], *parts: str) -> dict[tuple, list[Row]]:
    """Rows by these parts of them, in the order in which they first come."""
    found: dict[tuple, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        found.setdefault(tuple(row[part] for part in parts), []).append(row)
    return found


def mean_and_deviation(values: Iterable[float]) -> tuple[float, float]:
    """Of students that differ by their seed; of one alone the deviation is 0."""
    values = [*values]
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def spread(values: Iterable[float]) -> str:
    """Mean and standard deviation, as far as there are values."""
    values = [*values]
    mean, deviation = mean_and_deviation(values) if values else (0.0, 0.0)
    return f"{mean:.1f}{f' ± {deviation:.1f}' if len(values) > 1 else ''}" if values else ""


def differences(runs: dict[tuple, list[Row]], base: tuple) -> dict[tuple, tuple[float, float]]:
    """Mean paired difference of every run to one, and half its 95 % interval (NaN where nothing tells it)."""
    scores = {name: {row["seed"]: exported(row) for row in rows} for name, rows in runs.items()}
    if base not in scores:
        return {}
    whole = np.array(
        [[of[seed] for seed in scores[base]] for of in scores.values() if of.keys() == scores[base].keys()]
    )
    left = whole - whole.mean(1, keepdims=True) - whole.mean(0) + whole.mean()
    free = (whole.shape[0] - 1) * (whole.shape[1] - 1)
    deviation = np.sqrt((left**2).sum() / free) if free else np.nan
    found = {}
    for name, of in scores.items():
        if name != base and (seeds := of.keys() & scores[base].keys()):
            half = stats.t.ppf(0.975, free) * deviation * np.sqrt(2 / len(seeds)) if free else np.nan
            found[name] = (float(np.mean([of[seed] - scores[base][seed] for seed in seeds])), float(half))
    return found


def shown(difference: tuple[float, float] | None) -> str:
    """`+1.2 ± 0.8`, in bold where the interval does not hold 0."""
    if difference is None:
        return ""
    mean, half = difference
    text = f"{mean:+.1f}" + ("" if np.isnan(half) else f" ± {half:.1f}")
    return f"**{text}**" if abs(mean) > half else text


def by_set(rows: list[Row], table: Callable[[list[Row]], str]) -> str:
    """A table for every set and scale, under its heading."""
    sets = grouped(rows, "scale", "set")
    return "\n\n".join(f"### {name}, {scale}\n\n{table(found)}" for (scale, name), found in sets.items())


def methods_table(rows: Rows) -> str:
    """Per set and scale, every objective by head and against two of them."""
    return by_set(rows["methods"], lambda found: runs_table(grouped(found, "run")))


def runs_table(runs: dict[tuple, list[Row]]) -> str:
    """Of one set at one scale."""
    to_supervised, to_deit = differences(runs, ("supervised",)), differences(runs, ("deit",))
    heads = {title: lambda key, head=head: of_head(runs[key], head) for head, title in HEADS.items()}
    return markdown(
        best_first(runs),
        {
            "run": lambda key: key[0],
            "students": lambda key: str(len(runs[key])),
            **heads,
            "exported - supervised": lambda key: shown(to_supervised.get(key)),
            "exported - deit": lambda key: shown(to_deit.get(key)),
        },
    )


def best_first(runs: dict[tuple, list[Row]]) -> list[tuple]:
    """Names of runs by the mean score of their students."""
    return sorted(runs, key=lambda name: -np.mean([exported(row) for row in runs[name]]))


def of_head(rows: list[Row], head: str) -> str:
    """Mean and spread of the scores of one way of combining heads."""
    return spread(row["top1"][head] for row in rows if head in row["top1"])


def sets_table(rows: Rows) -> str:
    """Teachers and stores: how right, how large, how long."""
    return markdown(
        stores(rows).values(),
        {
            "set": lambda row: row["set"],
            "scale": lambda row: row["scale"],
            "store": lambda row: row["made"].removesuffix(".zarr"),
            "teacher's top-1, centre crops": lambda row: f"{100 * row['teacher']['top1']:.1f}",
            "on the recipe's crops": lambda row: f"{100 * row['teacher']['recipe_top1']:.1f}",
            "crops": lambda row: f"{row['crops']:,}",
            "bytes a crop": lambda row: ", ".join(
                f"`{name}` {size:.1f}" for name, size in sizes(row).items() if name != "total"
            ),
            "precompute, s": lambda row: f"{row['seconds']:.0f}" if row["seconds"] else "",
        },
    )


def sizes(row: Row) -> dict[str, float]:
    """Bytes a crop of a store, by what `--targets` calls them."""
    found: dict[str, float] = {}
    for field, size in row["bytes_per_crop"].items():
        name = next((name for name in TARGETS if field.startswith(name)), field)
        found[name] = found.get(name, 0) + size
    return found


def views_table(rows: Rows) -> str:
    """Accuracy by the number of stored views."""
    runs = grouped(rows["views"], "run", "at")
    names = dict.fromkeys(run for run, _ in runs)
    size = sizes(stores(rows)[rows["views"][0]["scale"], rows["views"][0]["set"], "views.zarr"])
    return markdown(
        sorted({int(at) for _, at in runs}),
        {
            "views": str,
            "bytes an image, `hard`": lambda at: f"{at * size['hard']:,.0f}",
            "bytes an image, `soft`": lambda at: f"{at * size['soft']:,.0f}",
            **{name: lambda at, name=name: spread(map(exported, runs.get((name, str(at)), []))) for name in names},
        },
    )


def stores(rows: Rows) -> dict[tuple, Row]:
    """Rows of stores by scale, set and name."""
    return {(row["scale"], row["set"], row["made"]): row for row in rows["sets"] if "crops" in row}


def store_of(row: Row, rows: Rows) -> Row | None:
    """The row of the store that a run read, None for a live teacher."""
    words = row["command"].split()
    if "--labels" not in words:
        return None
    return stores(rows)[row["scale"], row["set"], Path(words[words.index("--labels") + 1]).name]


def soft_table(rows: Rows) -> str:
    """Per set, every objective by the size of its soft targets, and against the default size."""
    return by_set(rows["soft"], lambda found: sizes_table(grouped(found, "run", "at"), rows))


def sizes_table(runs: dict[tuple, list[Row]], rows: Rows) -> str:
    """Of one set at one scale."""
    by_run = {run: differences(runs, (run, SOFT_DEFAULT)) for run, _ in runs}
    return markdown(
        runs,
        {
            "run": lambda key: key[0],
            "size": lambda key: key[1],
            "bytes a crop, `soft`": lambda key: f"{sizes(store_of(runs[key][0], rows))['soft']:.0f}" if key[1] else "",
            "students": lambda key: str(len(runs[key])),
            "exported": lambda key: spread(map(exported, runs[key])),
            "- default size": lambda key: shown(by_run[key[0]].get(key)),
        },
    )


class Spent(NamedTuple):
    """What students of one kind and length took and reached, on average; minutes of one core, and per cent."""

    epochs: int
    minutes: float
    top1: float
    spread: float


def spent(rows: Rows, run: str, *, students: int = 1) -> list[Spent]:
    """By length. Labelling the views that are used counts, shared by so many students; one view an epoch."""
    points = []
    for found in grouped([row for row in rows["time"] if row["run"] == run], "set", "at").values():
        seconds = float(np.mean([row["train_s"] * row["processors"] for row in found]))
        if store := store_of(found[0], rows):
            share = min(1, found[0]["epochs"] / store["seeds"])
            seconds += share * store["seconds"] * store["processors"] / students
        points.append(Spent(found[0]["epochs"], seconds / 60, *mean_and_deviation(map(exported, found))))
    return sorted(points)


def time_table(rows: Rows) -> str:
    """Every length of every kind."""
    lines = [(title, point) for title, run, students in CURVES for point in spent(rows, run, students=students)]
    return markdown(
        lines,
        {
            "labels": lambda line: line[0],
            "epochs": lambda line: str(line[1].epochs),
            "core-minutes a student": lambda line: f"{line[1].minutes:.1f}",
            "top-1": lambda line: f"{line[1].top1:.1f}",
        },
    )


def time_plot(rows: Rows) -> Figure:
    """Accuracy over the time that a student took."""
    figure, axes = plot("minutes of one core a student", "top-1 of the test images, %")
    for (title, run, students), style in zip(CURVES, STYLES, strict=False):
        points = spent(rows, run, students=students)
        axes.errorbar(
            *zip(*[point[1:3] for point in points], strict=True),
            [point.spread for point in points],
            fmt=style,
            label=title,
            capsize=2,
        )
    axes.set_xscale("log")
    axes.legend(frameon=False)
    return figure


def views_plot(rows: Rows) -> Figure:
    """Accuracy over the number of stored views, and over the bytes of the labels that are read."""
    figure, panels = plt.subplots(1, 2, figsize=(6.6, 3.2), sharey=True, layout="constrained")
    runs = grouped(rows["views"], "run", "at")
    for name, style in zip(dict.fromkeys(run for run, _ in runs), STYLES, strict=False):
        points = [
            (int(at), int(at) * read_bytes(found[0], rows), *mean_and_deviation(map(exported, found)))
            for (run, at), found in runs.items()
            if run == name
        ]
        views, stored, means, deviations = zip(*sorted(points), strict=True)
        for axes, at in zip(panels, (views, stored), strict=True):
            if all(at):
                axes.errorbar(at, means, deviations, fmt=style, label=name, capsize=2)
    panels[0].set(xlabel="stored views of an image", ylabel="top-1 of the test images, %")
    panels[0].set_xticks(sorted({int(at) for _, at in runs}), sorted({int(at) for _, at in runs}))
    panels[1].set(xlabel="bytes an image of the labels that are read")
    for axes in panels:
        axes.set_xscale("log")
        axes.minorticks_off()
        plain(axes)
    panels[0].legend(frameon=False)
    return figure


def read_bytes(row: Row, rows: Rows) -> float:
    """Of a crop's labels, those that the run's objective reads; 0 where nothing is stored."""
    store = store_of(row, rows)
    read = {need.partition(".")[0] for need in OBJECTIVES[row["objective"]]().needs}
    return sum(sizes(store)[name] for name in read) if store else 0


def methods_plot(rows: Rows) -> Figure:
    """Differences to true labels, with intervals, a panel a set."""
    sets = grouped([row for row in rows["methods"] if row["scale"] == "cpu"], "set")
    figure, panels = plt.subplots(1, len(sets), figsize=(6.6, 3.6), sharey=True, layout="constrained", squeeze=False)
    for axes, ((name,), found) in zip(panels[0], sets.items(), strict=True):
        runs = grouped(found, "run")
        bars = differences(runs, ("supervised",))
        names = [name for name in best_first(runs) if name in bars]
        axes.errorbar(
            [bars[name][0] for name in names],
            [run for (run,) in names],
            xerr=[bars[name][1] for name in names],
            fmt="ko",
            ms=4,
            capsize=2,
        )
        axes.axvline(0, color="0.6", lw=0.8)
        axes.set_title(name, loc="left")
        axes.set_xlabel("top-1 over supervised, percentage points")
    panels[0][0].invert_yaxis()
    return figure


def plot(x: str, y: str) -> tuple[Figure, Axes]:
    """An empty plot with these axes."""
    figure, axes = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    axes.set(xlabel=x, ylabel=y)
    plain(axes)
    return figure, axes


def plain(axes: Axes) -> None:
    """Lines to read heights by, and no frame."""
    axes.grid(axis="y", color="0.9")
    axes.spines[["right", "top"]].set_visible(False)


CURVES = (
    ("live teacher", "live", 1),
    ("stored, 1 student", "stored", 1),
    ("stored, 3 students", "stored", 3),
    ("stored, 10 students", "stored", 10),
    ("timm's token distillation", "timm", 1),
)
"""Title, run and how many students share the store."""
TABLES = {
    "sets": sets_table,
    "methods": methods_table,
    "views": views_table,
    "time": time_table,
    "soft": soft_table,
}
PLOTS = {"methods": methods_plot, "views": views_plot, "time": time_plot}


if __name__ == "__main__":
    main()
