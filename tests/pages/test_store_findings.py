"""What a page says of a store: shares, captions and tables, of winners that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cskd_pipeline.pages.crop_figure import crop_figure
from cskd_pipeline.pages.examples import Example
from cskd_pipeline.pages.markup import Markup, element, table, text
from cskd_pipeline.pages.sampled import STEPS, Sampled
from cskd_pipeline.pages.store_part import StoreFindings, store_part
from cskd_pipeline.store import StoreSummary, TeacherCheck
from cskd_pipeline.store.summary import SeedStatus

HEADER = {
    "grid": (1, 2),
    "data": {"name": "toy", "split": "train", "samples": 4, "classes": 3},
    "recipe": {"size": 32},
    "teacher": {
        "model": "net",
        "weights": "ab",
        "args": {"stride": 8},
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "precision": "fp32",
    },
}
CHECK = TeacherCheck(100, 0.9, 1.0, 0.8, 50, 0.6, 0.5, {}, ("the teacher is tired",))


def sampled(*, labels: list[int] | None = None) -> Sampled:
    """Four crops of two positions: local winners as below up to r = 1, where r < 0.5 makes all of them global."""
    local_42, global_4 = np.array([[0, 0], [1, 0], [1, 1], [2, 1]]), np.array([0, 0, 1, 1])
    winners = np.empty((len(STEPS), 4, 3), np.int64)
    winners[:, :, 0] = global_4
    for at in range(len(STEPS)):
        winners[at, :, 1:] = local_42 if at >= 5 else global_4[:, None]
    label_n = None if labels is None else np.array(labels)
    return Sampled("hard", np.zeros(4, np.int64), np.arange(4), winners, label_n, (1, 2), [])


def findings(**changes: Any) -> StoreFindings:
    seeds = [SeedStatus(0, 2, 4, {"hard": 300, "crop_crc": 100}, {"hard": {"crops": 4, "agreement": 1.0}})]
    summary = StoreSummary("s.zarr", HEADER, 2, seeds, [{"torch": "2.11", "device": "cpu"}], "digest", [], CHECK)
    given = {
        "sampled": sampled(labels=[0, 1, 1, 1]),
        "examples": (),
        "classes": ("disc", "bar", "<plain>"),
        "missing": (),
    }
    return StoreFindings(name="s.zarr", **{"summary": summary, **given, **changes})


def page(found: StoreFindings) -> str:
    return "".join(store_part(found).blocks)


def test_shares_are_those_of_the_winners() -> None:
    found = sampled(labels=[0, 1, 1, 1])
    # Global 0 0 1 1; local 00 10 11 21: 2 + 1 + 2 + 1 of 8 are the global one.
    assert found.as_global_K().tolist() == [1.0] * 5 + [0.75] * 6
    # True 0 1 1 1: 2 + 1 + 2 + 1 of 8 local ones, and 3 of 4 global ones.
    assert found.true_K() is not None and found.true_K().tolist() == [0.75] * 5 + [0.75] * 6
    assert found.as_global_HW().tolist() == [[0.5, 1.0]]
    assert found.true_HW().tolist() == [[0.75, 0.75]]
    by_class = found.by_class(3)
    assert by_class is not None and by_class.crops_C.tolist() == [1, 3, 0]
    np.testing.assert_allclose(by_class.true_C, [1, 4 / 6, np.nan])
    np.testing.assert_allclose(by_class.as_global_C, [1, 4 / 6, np.nan])
    np.testing.assert_allclose(by_class.global_C, [1, 2 / 3, np.nan])
    assert found.confusion() == {(0, 0): 1, (1, 0): 1, (1, 1): 2}


def test_captions_draw_the_conclusions() -> None:
    said = page(findings())
    for part in (
        "Labels of 4 images of toy (train, 3 classes): 4 augmented crops of 32 x 32 pixels, seeds 0 complete.",
        "They take 100.0 bytes a crop, 400 bytes in all.",
        "named the class of 90.0% of 100 plain centre crops (100.0% among its five best)",
        '<p class="note">the teacher is tired</p>',
        "Of 8 positions of 4 crops, 75.0% have the global class as their local one. At r = 0.5 it is 75.0%",
        "winners move most between r = 0.4 and 0.5, where 25.0% of all positions change sides.",
        "in row 1, column 2 (100.0%), fewest in row 1, column 1 (50.0%).",
        "The teacher knows bar least: its global label is right for 66.7% of 3 crops. Over all classes it is 75.0%.",
        "bar is most often taken for disc: 1 crop.",
        "hard takes 75.0% of the store.",
        "The 1 seed that was begun is complete, 2 blocks each.",
    ):
        assert part in said, part


def test_without_images_there_are_no_true_classes() -> None:
    said = page(findings(sampled=sampled(), classes=None, missing=("The images were not found.",)))
    assert '<p class="note">The images were not found.</p>' in said
    assert "true class" not in said and "By class" not in said and "75.0% have the global class" in said


def test_a_store_without_winners_still_has_its_facts() -> None:
    said = page(findings(sampled=None))
    assert "By position" not in said and "100.0 bytes a crop" in said


def test_what_is_incomplete_or_wrong_is_said() -> None:
    seeds = [
        SeedStatus(0, 2, 4, {"hard": 400}, {"hard": {"crops": 4, "agreement": 0.5}}),
        SeedStatus(3, 1, 2, {"hard": 200}, {}),
    ]
    summary = StoreSummary("s.zarr", HEADER, 2, seeds, [], "digest", ["seed 3: a commit is damaged"], None)
    said = page(findings(summary=summary))
    for part in (
        "1 seed of 2 is not complete, and training leaves them out: run cskd-pipeline precompute again.",
        "seed 3: a commit is damaged",
        "hard should agree on all winners, and does on 50.0% in a seed: run cskd-pipeline verify.",
        "Nobody looked at how right it is",
    ):
        assert part in said, part


@pytest.fixture
def example() -> Example:
    """Two positions: the second says bar at r = 1, half and half it is the global disc."""
    winners = np.array([[0, 0, 1], [0, 0, 0], [0, 0, 0]])
    probabilities = np.array([[0.9, 0.8, 0.6], [0.9, 0.85, 0.7], [0.9, 0.9, 0.9]], np.float32)
    return Example("img<1>", 0, 5, b"JPEG", 32, 2, 1, 0.7, winners, probabilities, True)


def test_a_crop_has_its_labels_in_pictures_and_in_words(example: Example) -> None:
    drawn = crop_figure(example, (1, 2), lambda number: ("disc", "bar", "<plain>")[number])
    assert drawn.count("<svg") == 4 and drawn.count("data:image/jpeg;base64,SlBFRw==") == 1
    titles = [title.partition("</title>")[0] for title in drawn.split("<title>")[1:]]
    assert titles == [
        "row 1, column 1: disc, 80.0%", "row 1, column 2: bar, 60.0%",
        "row 1, column 1: disc, 85.0%", "row 1, column 2: disc, 70.0%",
        "row 1, column 1: disc, 90.0%", "row 1, column 2: disc, 90.0%",
    ]  # fmt: skip
    # disc wins at 80, 85, 70, 90 and 90 per cent.
    assert "1 disc (83.0%)" in drawn and "2 bar (60.0%)" in drawn
    assert "True: 70.0% &lt;plain&gt; and 30.0% bar. Global label: disc at 90.0%, the local one of 1 of 2" in drawn
    assert "(the others: bar 1), of 2 at r = 0.5." in drawn


def test_text_is_escaped_and_what_cannot_be_printed_replaced() -> None:
    assert text("<a & b>\x00") == "&lt;a &amp; b&gt;\N{REPLACEMENT CHARACTER}"
    assert element("p", Markup("<b>x</b>"), "<", title='"') == '<p title="&quot;"><b>x</b>&lt;</p>'
    assert "<td" in table(["a"], [["<x>"]]) and "<x>" not in table(["a"], [["<x>"]])
