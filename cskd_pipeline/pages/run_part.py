"""Runs side by side: how they ended, how they went, and in what they differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cskd_pipeline.pages.markup import Markup, element, figure, folded, legend, note, paragraph, table, text
from cskd_pipeline.pages.page import Part
from cskd_pipeline.pages.plots import SERIES, Line, line_plot
from cskd_pipeline.pages.run import Run
from cskd_pipeline.training.run_folder import leaves
from cskd_pipeline.wording import counted, duration, listed, percent, shortened

WAITING = 0.2
"""The share of an epoch spent waiting for data above which there is something to do, as `train` says too."""

_LEAST_GAP = 0.1
"""In points of top-1, below which two runs are said to be level."""

_UNTOLD = ("extra.classes", "notes.command", "version")
"""Settings that are not compared here: they are long, shown elsewhere, or not a user's."""


def runs_part(runs: Sequence[Run]) -> Part:
    """All runs of a page."""
    names = listed([run.name for run in runs])
    blocks = [note(f"{run.name}: {problem}") for run in runs for problem in run.unread]
    blocks += [paragraph(_conclusion(runs)), _table(runs), *_curves(runs), *_settings(runs), *_commands(runs)]
    return Part(f"Run {names}" if len(runs) == 1 else f"Runs {shortened(names, 80)}", blocks)


def _conclusion(runs: Sequence[Run]) -> str:
    scored = sorted(((run.best[2], run) for run in runs if run.best is not None), key=lambda pair: -pair[0])
    open_ = [run.name for run in runs if not run.finished]
    if not scored:
        said = f"{'The run was' if len(runs) == 1 else 'None of the runs was'} evaluated{' not' * (len(runs) == 1)}."
        said = said.replace("was evaluated not", "was not evaluated")
    else:
        top1, first = scored[0]
        assert first.best is not None
        head, epoch, _ = first.best
        said = f"{first.name} reaches the best top-1, {top1:.2f}%, with {head} after epoch {epoch}"
        if len(scored) > 1:
            behind, second = scored[1]
            level = top1 - behind < _LEAST_GAP
            said += f", level with {second.name}" if level else f": {top1 - behind:.2f} points over {second.name}"
        said += "."
    if open_:
        said += f" {listed(open_)} {'is' if len(open_) == 1 else 'are'} not finished, so that may change."
    return said


def _table(runs: Sequence[Run]) -> Markup:
    head = ["run", "epochs", "objective", "student", "loss", "top-1", "head", "crops/s", "time", "waiting"]
    rows = []
    for run in runs:
        done = f"{int(run.rows[-1]['epoch'])}" if run.rows else "0"
        loss, rate, best = run.last("train/loss"), run.last("crops_per_s"), run.best
        wait = _waiting(run)
        rows.append(
            [
                run.name,
                f"{done} of {run.epochs or '?'}",
                run.part("objective").get("name", "-"),
                run.part("student").get("model", "-"),
                "-" if loss is None else f"{loss:.4f}",
                "-" if best is None else f"{best[2]:.2f}%",
                "-" if best is None else f"{best[0]}, epoch {best[1]}",
                "-" if rate is None else f"{rate:,.0f}",
                duration(sum(row.get("seconds", 0.0) for row in run.rows)) if run.rows else "-",
                "-" if wait is None else percent(wait),
            ]
        )
    return table(head, rows, numbers=(1, 4, 5, 7, 8, 9))


def _curves(runs: Sequence[Run]) -> list[Markup]:
    heads = list(dict.fromkeys(name for run in runs for row in run.rows for name in row if name.endswith("/top1")))
    plots: list[tuple[str, str, float, Callable[[], str]]] = [
        ("train/loss", "training loss", 1.0, lambda: _loss_caption(runs)),
        *(
            (name, f"top-1, {name.removesuffix('/top1')}", 0.01, lambda name=name: _head_caption(runs, name))
            for name in heads
        ),
        ("data_wait_share", "time spent waiting for data", 1.0, lambda: _waiting_caption(runs)),
    ]
    figures = []
    for name, heading, factor, caption in plots:
        lines = [
            Line(run.name, [(epoch, factor * value) for epoch, value in run.points(name)], at)
            for at, run in enumerate(runs)
        ]
        drawn = line_plot(lines, x="epoch", y=heading, share=name != "train/loss", label=f"{heading} by epoch")
        if any(line.points for line in lines):
            figures.append(figure(drawn if drawn is not None else element("strong", heading), caption()))
    if not figures:
        return [note("No epoch is finished: there are no curves to show.")]
    names = legend((at % SERIES, run.name) for at, run in enumerate(runs)) if len(runs) > 1 else text("")
    return [
        element("h3", "How they went" if len(runs) > 1 else "How it went"),
        names,
        element("div", *figures, class_="plots"),
    ]


def _loss_caption(runs: Sequence[Run]) -> str:
    ends = [(run.name, [value for _, value in run.points("train/loss")]) for run in runs]
    said = []
    for name, values in ends:
        if len(values) < 2:
            continue
        fall = (values[-2] - values[-1]) / abs(values[-2]) if values[-2] else 0.0
        how = "still falls" if fall > 0.01 else "rises" if fall < -0.01 else "has levelled off"
        said.append(f"{name} {how} ({-fall:+.1%} in the last epoch)")
    objectives = {run.part("objective").get("name") for run in runs}
    apart = " Losses of different objectives are not comparable." if len(objectives) > 1 else ""
    return f"{listed(said) if said else 'One epoch says nothing of the trend'}.{apart}"


def _head_caption(runs: Sequence[Run], name: str) -> str:
    ends = [(points[-1][1], run.name) for run in runs if (points := run.points(name))]
    ends.sort(reverse=True)
    (top1, first), *others = ends
    if not others:
        return f"{first} ends at {top1:.2f}%{'; it alone has this head' if len(runs) > 1 else ''}."
    return f"{first} ends highest at {top1:.2f}%, {listed([f'{other} at {value:.2f}%' for value, other in others])}."


def _waiting(run: Run) -> float | None:
    """The share of a run's time that it waited for data."""
    rows = [row for row in run.rows if "data_wait_share" in row and row.get("seconds", 0) > 0]
    if not rows:
        return None
    return sum(row["data_wait_share"] * row["seconds"] for row in rows) / sum(row["seconds"] for row in rows)


def _waiting_caption(runs: Sequence[Run]) -> str:
    waits = {run.name: wait for run in runs if (wait := _waiting(run)) is not None}
    slow = [f"{name} ({percent(wait)})" for name, wait in waits.items() if wait > WAITING]
    if slow:
        return (
            f"{listed(slow)} waited for data for more than {percent(WAITING)} of the time: more workers, or "
            "RandAugment on the GPU, would make epochs shorter."
        )
    most = max(waits.values())
    return f"Over a whole run waiting took at most {percent(most)} of the time: making crops does not hold training up."


def _settings(runs: Sequence[Run]) -> list[Markup]:
    if len(runs) < 2:
        values = [(name, _shown(value)) for name, value in leaves(runs[0].settings) if name not in _UNTOLD]
        return [folded(f"All {len(values)} settings", table(["setting", "value"], values))] if values else []
    known = [dict(leaves(run.settings)) for run in runs]
    names = sorted({name for values in known for name in values} - {*_UNTOLD})
    rows = [
        [name, *(_shown(values[name]) if name in values else "-" for values in known)]
        for name in names
        if any(values.get(name) != known[0].get(name) for values in known)
    ]
    blocks = [element("h3", "Settings that differ")]
    if not rows:
        return [*blocks, paragraph(f"None: all {len(names)} are the same.")]
    same = len(names) - len(rows)
    blocks.append(table(["setting", *(run.name for run in runs)], rows))
    blocks.append(
        element("p", f"{counted(same, 'other setting')} {'is' if same == 1 else 'are'} the same.", class_="small")
    )
    return blocks


def _shown(value: object) -> str:
    return "none" if value is None else shortened(str(value), 70)


def _commands(runs: Sequence[Run]) -> list[Markup]:
    blocks = [element("h3", "Commands" if len(runs) > 1 else "Command")]
    for run in runs:
        blocks.append(element("p", run.name, class_="small"))
        blocks.append(
            element("pre", run.command or "not noted: the run was begun by an earlier release, or by a loop of its own")
        )
    return blocks
