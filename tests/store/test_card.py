"""The card of a store says what the store is, whatever the store is called, and its snippet works."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_label_store import FEATURES, FULL, HARD, SOFT, Encodings, header, write

from cskd_pipeline.publish.card import card_text, write_card
from cskd_pipeline.storage import open_storage
from cskd_pipeline.store import StoreReader, StoreSummary, StoreWriter, check_tree, summarise

NASTY = "a|b `c` ```\n---\n# x: [y] \\| <b>&amp; \u202e\ud800 'q' \"p\" {{z}} --> é"


def parts(card: str) -> tuple[dict[str, Any], str]:
    match = re.fullmatch(r"---\n(.*?\n)---\n(.*)", card, re.DOTALL)
    assert match is not None
    return yaml.safe_load(match[1]), match[2]


def summary(path: Path, encodings: Encodings = HARD | SOFT, **changes: object) -> StoreSummary:
    if changes:
        StoreWriter(path, header(encodings, **changes))
    else:
        write(path, encodings)
    return summarise(StoreReader(path))


def test_a_card_says_what_the_store_is(tmp_path: Path) -> None:
    found = summary(tmp_path / "labels.zarr")
    front, body = parts(card_text(found))
    assert front["license"] == "other" and front["size_categories"] == ["n<1K"]
    assert {"knowledge-distillation", "image-classification", "zarr", "cskd"} <= set(front["tags"])
    assert "must choose a licence; none was named" in body
    for fact in (
        "`toy`, split `train`",
        "150, 11",
        "`ab12`",
        "`cd34`",
        "`0,5`, 2 in all",
        found.digest,
        "2 x 3",
        "300",
    ):
        assert fact in body, fact
    sizes = found.bytes_per_crop
    assert f"| {sizes['hard'] + sizes['hard_spill']:.2f} | `agreement` 0.86" in body and "(on 66 crops)" in body
    assert f"| {sizes['total']:.2f} |" in body and "row_bytes 24" in body


@pytest.mark.parametrize(
    "encodings", [HARD, SOFT, FULL, FEATURES, HARD | SOFT], ids=["hard", "soft", "full", "features", "both"]
)
def test_the_snippet_of_a_card_runs_with_zarr_alone(
    encodings: Encodings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = card_text(summary(tmp_path / "labels.zarr", encodings))
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert snippet is not None and len(snippet[1].splitlines()) <= 7
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(snippet[1], names)
    assert (names["checksums"][:3] == [0, 7, 14]).all() and len(names["checksums"]) == 150
    for name in encodings.keys() & {"hard", "soft"}:
        assert len(names[f"{name}_page"]) == 64 * encodings[name].field.row_bytes
    if "hard" in encodings:
        assert int.from_bytes(names["hard_page"][:4], "little") == 64  # records of the page
    for name in encodings.keys() & {*FEATURES}:
        assert names[name.replace(".", "_") + "_row"].shape == encodings[name].field.row_shape
    if "full" in encodings:
        assert names["logits"].shape == (7, 11)


def test_long_lists_of_channels_are_counted(tmp_path: Path) -> None:
    body = parts(card_text(summary(tmp_path / "labels.zarr", FEATURES)))[1]
    assert "`positions 6, classes 11, channels 60 measured, bits 7`" in body
    assert "channels 2 x 60 measured, layers [0, -1], tokens 4, bits [4, 8]`" in body
    assert max(len(line) for line in body.splitlines() if "measured" in line) < 160


def test_names_cannot_break_a_card(tmp_path: Path) -> None:
    data = {**header().data, "name": NASTY, "split": NASTY, "digest": NASTY}
    teacher = {"model": NASTY, "weights": NASTY, "args": {NASTY: [NASTY]}, "precision": NASTY, "chunk": None}
    found = summary(tmp_path / "labels.zarr", data=data, teacher=teacher, recipe={"name": NASTY, NASTY: "```"})
    found.seeds[:] = [
        dataclasses.replace(seed, fidelity={"hard": {"crops": 3, NASTY: float("nan")}})
        for seed in summary(tmp_path / "plain.zarr").seeds
    ]
    plain = parts(card_text(summarise(StoreReader(tmp_path / "plain.zarr"))))
    for license in (None, "mit", NASTY):
        card = card_text(found, license=license)
        assert card.encode().decode() == card
        front, body = parts(card)
        assert front["pretty_name"].startswith("Labels of a|b `c` ``` --- # x: [y] \\| <b>&amp; \ufffd\ufffd 'q'")
        assert front["license"] == ("mit" if license == "mit" else "other")
        assert front.keys() - {"license_details"} == plain[0].keys()
        headings = [line for line in body.splitlines() if line.startswith("#")]
        assert headings[1:] == [line for line in plain[1].splitlines() if line.startswith("#")][1:]
        assert sum(line.startswith("```") for line in body.splitlines()) == 8
        tables = [line for line in body.splitlines() if line.startswith("|")]
        assert {line.count("|") for line in tables} == {3, 5}
        shown = re.sub(r"```json\n.*?\n```", "", body, flags=re.DOTALL)
        assert "<b>" not in shown and "\u202e" not in body


@pytest.mark.parametrize(
    ("given", "front"),
    [
        ("CC-BY-4.0", {"license": "cc-by-4.0"}),
        (" mit\n", {"license": "mit"}),
        ("for research only: ask us", {"license": "other", "license_details": "for research only: ask us"}),
    ],
)
def test_a_licence_is_an_identifier_or_a_text(given: str, front: dict[str, str], tmp_path: Path) -> None:
    found, body = parts(card_text(summary(tmp_path / "s.zarr"), license=given))
    assert {name: value for name, value in found.items() if name.startswith("license")} == front
    assert f"`{' '.join(given.split())}`, as named by" in body and "must be decided" not in body


@pytest.mark.parametrize(
    ("crops", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (38_435_010, "10M<n<100M"), (10**12, "n>1T"), (10**20, "n>1T")],
)
def test_the_size_is_that_of_the_hub(crops: int, category: str, tmp_path: Path) -> None:
    found = summary(tmp_path / "s.zarr")
    found.seeds[:] = [dataclasses.replace(found.seeds[0], crops=crops)]
    assert parts(card_text(found))[0]["size_categories"] == [category]


def test_a_card_of_ones_own_is_kept_and_one_that_was_written_is_renewed(tmp_path: Path) -> None:
    found = summary(tmp_path / "s.zarr")
    storage, file = open_storage(tmp_path / "s.zarr"), tmp_path / "s.zarr/README.md"
    assert write_card(storage, found) and file.read_text() == card_text(found)
    assert [*check_tree(StoreReader(tmp_path / "s.zarr"))] == []
    assert write_card(storage, found, license="mit") and file.read_text() == card_text(found, license="mit")
    for mine in (file.read_text().replace("of `toy`", "of my toy"), "mine", "", file.read_text() + "more\n"):
        file.write_text(mine)
        assert not write_card(storage, found, license="mit")
        assert file.read_text() == mine
