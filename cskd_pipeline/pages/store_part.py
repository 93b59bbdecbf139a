"""A store: what it is, what its labels say, and how complete it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cskd_pipeline.pages.crop_figure import crop_figure
from cskd_pipeline.pages.examples import Example
from cskd_pipeline.pages.markup import (
    Markup,
    bar,
    code,
    element,
    facts,
    figure,
    folded,
    legend,
    note,
    paragraph,
    table,
)
from cskd_pipeline.pages.page import Part
from cskd_pipeline.pages.plots import Line, confusion_map, grid_map, line_plot
from cskd_pipeline.pages.sampled import STEPS, Sampled
from cskd_pipeline.ratio import RATIO_STEPS
from cskd_pipeline.seeds import format_seeds
from cskd_pipeline.store import StoreSummary
from cskd_pipeline.wording import counted, listed, percent, shortened, size

CLASSES = 12
"""Classes that the table and the confusion map show: those with the most to say."""

_MANY_SEEDS = 12
"""Seeds beyond which their fidelity is folded."""


@dataclasses.dataclass(frozen=True, slots=True)
class StoreFindings:
    """What was read of a store.

    Attributes:
        name: of the store.
        summary: what `inspect` says.
        sampled: the winners of some crops; None where the store names none.
        examples: some crops with their pixels.
        classes: their names; None where the images were not found.
        missing: what could not be looked at, and why, a sentence each.
    """

    name: str
    summary: StoreSummary
    sampled: Sampled | None
    examples: Sequence[Example]
    classes: Sequence[str] | None
    missing: Sequence[str]

    def class_name(self, number: int) -> str:
        """Of a class, or its number."""
        return f"class {number}" if self.classes is None else self.classes[number]


def store_part(found: StoreFindings) -> Part:
    """All about one store."""
    blocks = [_what_it_is(found.summary), *(note(line) for line in found.missing), *_teacher(found.summary)]
    if found.examples:
        blocks += _examples(found)
    if found.sampled is not None and len(found.sampled):
        blocks += [*_ratios(found.sampled), *_positions(found.sampled), *_classes(found, found.sampled)]
    blocks += [*_bytes(found.summary), *_fidelity(found.summary), *_completeness(found.summary)]
    return Part(f"Labels {found.name}", blocks)


def _what_it_is(summary: StoreSummary) -> Markup:
    header, stored = summary.header, summary.bytes_per_crop["total"]
    height, width = header["grid"]
    data, recipe, teacher = header["data"], header["recipe"], header["teacher"]
    seeds = f"seeds {format_seeds(summary.complete)}" if summary.complete else "no seed"
    return paragraph(
        f"Labels of {counted(data['samples'], 'image')} of {data['name']} ({data['split']}, "
        f"{counted(data['classes'], 'class', 'classes')}): {summary.crops:,} augmented crops of {recipe['size']} x "
        f"{recipe['size']} pixels, {seeds} complete. {teacher['model']} gave each crop a global label, and a local "
        f"one at "
        f"each of {height} x {width} positions. They take {stored:.1f} bytes a crop, {size(stored * summary.crops)} "
        f"in all."
    )


def _teacher(summary: StoreSummary) -> list[Markup]:
    spec, check = summary.header["teacher"], summary.teacher_check
    heading = element("h3", "The teacher")
    known = facts(
        [
            ("model", code(spec["model"])),
            ("weights", code(spec["weights"])),
            ("arguments", ", ".join(f"{key}={value}" for key, value in spec["args"].items()) or "none"),
            ("normalised by", f"mean {_numbers(spec['mean'])}, std {_numbers(spec['std'])}"),
            ("precision", spec["precision"]),
        ]
    )
    if check is None:
        return [
            heading,
            paragraph("Nobody looked at how right it is on these images before the labels were made."),
            known,
        ]
    said = (
        f"Before the labels were made it named the class of {percent(check.top1)} of {check.images:,} plain centre "
        f"crops ({percent(check.top5)} among its five best), at a mean confidence of {percent(check.confidence)}. "
        f"Of {check.recipe_crops:,} crops of the recipe, as the student sees them, it named the class of the larger "
        f"part "
        f"of {percent(check.recipe_top1)}, at a mean confidence of {percent(check.recipe_confidence)}."
    )
    return [heading, paragraph(said), *(note(line) for line in check.warnings), known]


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _examples(found: StoreFindings) -> list[Markup]:
    figures = [crop_figure(example, found.summary.header["grid"], found.class_name) for example in found.examples]
    changed = [example.key for example in found.examples if not example.as_stored]
    blocks = [
        element("h3", "Crops as the student sees them"),
        paragraph(
            "Each is replayed from its image, with the labels that are stored for it: at r = 1 every position learns "
            "its "
            "local label, at r = 0 all learn the global one, and training moves from the first to the last. A number "
            "stands for a class, named below the crop with its mean probability where it wins; a pointer that rests "
            "on a "
            "position shows its own."
        ),
        element("div", *figures, class_="crops"),
    ]
    if changed:
        blocks.append(
            note(
                f"The pixels of {listed(changed[:3])} are not those that were labelled: a library that makes crops "
                f"gives "
                "others, or the image changed. Training from this store would stop."
            )
        )
    return blocks


def _ratios(sampled: Sampled) -> list[Markup]:
    same_K, true_K = sampled.as_global_K(), sampled.true_K()
    ratios = [step / RATIO_STEPS for step in STEPS]
    lines = [Line("as the global label", [*zip(ratios, same_K.tolist(), strict=True)], 0)]
    if true_K is not None:
        lines.append(Line("the true class", [*zip(ratios, true_K.tolist(), strict=True)], 1))
    drawn = line_plot(lines, x="r", y="share of positions", share=True, whole=False, label="winners by ratio")
    half = same_K[len(ratios) // 2]
    caption = (
        f"Of {counted(sampled.local_nP.size, 'position')} of {counted(len(sampled), 'crop')}, "
        f"{percent(same_K[-1])} have the global class as their local one. At r = 0.5 it is {percent(half)}"
        f": {_where_they_move(ratios, same_K)}"
    )
    if true_K is not None:
        gain = true_K[0] - true_K[-1]
        caption += (
            f" The true class is that of {percent(true_K[-1])} of the local labels and of {percent(true_K[0])} of the "
            f"global ones, so {'global labels are the safer' if gain > 0 else 'local labels are no less right'}."
        )
    return [
        element("h3", "How winners move from local to global"),
        legend((line.series, line.name) for line in lines) if len(lines) > 1 and drawn is not None else Markup(),
        element("div", figure(drawn if drawn is not None else Markup(), caption), class_="plots"),
    ]


def _where_they_move(ratios: Sequence[float], same_K: npt.NDArray[np.floating]) -> str:
    steps = -np.diff(same_K)
    if steps.sum() < 0.01:
        return "local labels hardly differ from global ones, and r changes little."
    at = int(steps.argmax())
    return (
        f"winners move most between r = {ratios[at]:.1f} and {ratios[at + 1]:.1f}, where {percent(float(steps[at]))} "
        f"of "
        f"all "
        "positions change sides."
    )


def _positions(sampled: Sampled) -> list[Markup]:
    if sampled.local_nP.shape[1] == 1:
        return []
    maps: list[tuple[str, npt.NDArray[np.float64] | None, str]] = [
        ("local label is the global one", sampled.as_global_HW(), "agree with the global label"),
        ("local label is the true class", sampled.true_HW(), "name the true class"),
    ]
    figures = []
    for name, share_HW, what in maps:
        if share_HW is None:
            continue
        drawn = grid_map(share_HW, name=name, label=f"{name}, by position")
        picture = drawn if drawn is not None else element("strong", name)
        figures.append(figure(picture, _position_caption(share_HW, what)))
    return [element("h3", "By position"), element("div", *figures, class_="plots")]


def _position_caption(share_HW: npt.NDArray[np.float64], what: str) -> str:
    height, width = share_HW.shape
    best, worst = (np.unravel_index(at, share_HW.shape) for at in (share_HW.argmax(), share_HW.argmin()))
    said = (
        f"Most local labels {what} in row {best[0] + 1}, column {best[1] + 1} ({percent(share_HW[best])}), fewest in "
        f"row "
        f"{worst[0] + 1}, column {worst[1] + 1} ({percent(share_HW[worst])})."
    )
    if min(height, width) < 3:
        return said
    inner = np.zeros(share_HW.shape, bool)
    inner[1:-1, 1:-1] = True
    centre, edge = share_HW[inner].mean(), share_HW[~inner].mean()
    if abs(centre - edge) < 0.01:
        return f"{said} Edges are as good as the rest."
    return f"{said} It is {percent(centre)} inside and {percent(edge)} at the edges."


def _classes(found: StoreFindings, sampled: Sampled) -> list[Markup]:
    count = found.summary.header["data"]["classes"]
    by_class = sampled.by_class(count)
    if by_class is None:
        return []
    seen = [number for number in range(count) if by_class.crops_C[number]]
    worst = sorted(seen, key=lambda number: (by_class.global_C[number], by_class.true_C[number], number))
    rows = [
        [
            found.class_name(number),
            f"{by_class.crops_C[number]:,}",
            bar(float(by_class.global_C[number])),
            bar(float(by_class.true_C[number])),
            bar(float(by_class.as_global_C[number])),
        ]
        for number in worst[:CLASSES]
    ]
    head = ["class", "crops", "global label is true", "local labels are true", "local as global"]
    least = worst[0]
    caption = (
        f"The teacher knows {found.class_name(least)} least: its global label is right for "
        f"{percent(float(by_class.global_C[least]))} of {counted(int(by_class.crops_C[least]), 'crop')}. Over all "
        f"classes it is {percent(float((sampled.global_n == sampled.label_n).mean()))}."
    )
    shown = f"The {CLASSES} classes of {len(seen)} that it knows least." if len(seen) > CLASSES else ""
    return [
        element("h3", "By class"),
        paragraph(caption, " ", shown),
        table(head, rows, numbers=(1,)),
        *_confusion(found, sampled),
    ]


def _confusion(found: StoreFindings, sampled: Sampled) -> list[Markup]:
    pairs = sampled.confusion()
    wrong = {pair: number for pair, number in pairs.items() if pair[0] != pair[1]}
    if not wrong:
        return [paragraph("No global label names another class than the true one: there is no confusion to show.")]
    weight: dict[int, int] = {}
    for (true, said), number in wrong.items():
        for one in (true, said):
            weight[one] = weight.get(one, 0) + number
    shown = sorted(sorted(weight, key=lambda one: (-weight[one], one))[:CLASSES])
    total = {true: sum(number for (of, _), number in pairs.items() if of == true) for true in shown}
    share_CC = np.array([[pairs.get((true, said), 0) / max(1, total[true]) for said in shown] for true in shown])
    drawn = confusion_map(
        share_CC, names=[found.class_name(one) for one in shown], label="true classes and global labels"
    )
    (true, said), most = max(wrong.items(), key=lambda item: (item[1], item[0]))
    both = wrong.get((said, true), 0)
    caption = (
        f"{found.class_name(true)} is most often taken for {found.class_name(said)}: {counted(most, 'crop')}"
        f"{f', and the other way round {both}' if both else ''}. Of a mixed crop the true class is that of its larger "
        "part, and the teacher may name the other."
    )
    picture = drawn if drawn is not None else element("strong", "Confusion")
    return [element("div", figure(picture, caption), class_="plots")]


def _bytes(summary: StoreSummary) -> list[Markup]:
    per_crop = {name: value for name, value in summary.bytes_per_crop.items() if name != "total"}
    total = sum(per_crop.values())
    if not total:
        return []
    ordered = sorted(per_crop.items(), key=lambda item: -item[1])
    rows: list[list[object]] = [
        [code(name), f"{value:.1f}", size(value * summary.crops), bar(value / total)] for name, value in ordered
    ]
    rows.append(["total", f"{total:.1f}", size(total * summary.crops), ""])
    most, value = ordered[0]
    return [
        element("h3", "Bytes"),
        paragraph(f"{most} takes {percent(value / total)} of the store."),
        table(["field", "bytes a crop", "in all", "share"], rows, numbers=(1, 2)),
    ]


def _fidelity(summary: StoreSummary) -> list[Markup]:
    measures = list(
        dict.fromkeys(
            (encoding, measure)
            for seed in summary.seeds
            for encoding, values in seed.fidelity.items()
            for measure in values
            if measure != "crops"
        )
    )
    if not measures:
        return []
    head = ["seed", *(f"{encoding}: {measure}" for encoding, measure in measures)]
    rows = [
        [
            str(seed.seed),
            *(
                f"{seed.fidelity[encoding][measure]:.4g}" if measure in seed.fidelity.get(encoding, {}) else "-"
                for encoding, measure in measures
            ),
        ]
        for seed in summary.seeds
    ]
    shown = table(head, rows, numbers=range(1, len(head)))
    said = (
        "What is stored against what the teacher said, measured on some crops while labels were made. hard: share of "
        "winners that are the teacher's. soft: share of probability that is kept, and the divergence (nats) from the "
        f"teacher's. {_spread(summary, measures)}"
    )
    many = len(rows) > _MANY_SEEDS
    return [element("h3", "Fidelity"), paragraph(said), folded(f"All {len(rows)} seeds", shown) if many else shown]


def _spread(summary: StoreSummary, measures: Sequence[tuple[str, str]]) -> str:
    for encoding, measure in measures:
        values = [
            seed.fidelity[encoding][measure] for seed in summary.seeds if measure in seed.fidelity.get(encoding, {})
        ]
        if measure == "agreement" and min(values) < 1:
            least = percent(min(values))
            return f"{encoding} should agree on all winners, and does on {least} in a seed: run cskd-pipeline verify."
    return "No seed stands out by wrong winners." if ("hard", "agreement") in measures else ""


def _completeness(summary: StoreSummary) -> list[Markup]:
    open_ = [seed for seed in summary.seeds if seed.blocks < summary.blocks]
    blocks: list[Markup] = [element("h3", "Completeness")]
    if open_:
        rows = [
            [str(seed.seed), f"{seed.blocks} of {summary.blocks}", bar(seed.blocks / summary.blocks)] for seed in open_
        ]
        blocks += [
            note(
                f"{counted(len(open_), 'seed')} of {len(summary.seeds)} {'is' if len(open_) == 1 else 'are'} not "
                f"complete, "
                "and training leaves them out: run cskd-pipeline precompute again."
            ),
            table(["seed", "blocks", "done"], rows, numbers=(1,)),
        ]
    else:
        blocks.append(
            paragraph(
                f"{'All' if len(summary.seeds) > 1 else 'The'} {counted(len(summary.seeds), 'seed')} that "
                f"{'were' if len(summary.seeds) > 1 else 'was'} begun {'are' if len(summary.seeds) > 1 else 'is'} "
                f"complete, {counted(summary.blocks, 'block')} each. The command cskd-pipeline verify checks the bytes."
            )
        )
    blocks += [note(line) for line in summary.unreadable]
    for number, versions in enumerate(summary.writers, 1):
        named = ", ".join(
            f"{name} {versions[name]}" for name in ("cskd_pipeline", "torch", "device") if name in versions
        )
        blocks.append(folded(f"Writer {number}: {shortened(named, 90)}", facts(sorted(versions.items()))))
    return blocks
