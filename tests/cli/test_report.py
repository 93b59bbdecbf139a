"""`report` writes one file about stores and runs, whatever of them can be read."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cskd_pipeline as cskd
from cskd_pipeline.crops.recipe import RECIPES, CropRecipe
from cskd_pipeline.data import open_split
from cskd_pipeline.loading import CropLoader
from cskd_pipeline.loading.order import sample_batches
from cskd_pipeline.pages.sampled import probabilities_of, sample_labels, true_classes
from cskd_pipeline.store import StoreReader


@pytest.fixture
def page(command: Any, tmp_path: Path) -> Any:
    """The text of the page about some places, and what was said."""

    def page(*words: object) -> tuple[str, Any]:
        done = command("report", *words, "--out", tmp_path / "page.html")
        assert done.code == 0, done.err
        assert done.out == f"{tmp_path / 'page.html'}\n"
        return (tmp_path / "page.html").read_text(), done

    return page


def test_a_store_and_a_run_share_a_page_that_needs_nothing_else(
    page: Any, finished_store: Path, finished_run: Path, toy: Path
) -> None:
    written, _ = page(finished_store, finished_run, "--data", toy, "--crops", "3")
    assert "<script" not in written and "http" not in written
    assert re.findall(r'(?:src|href)="(?!data:image/jpeg|#)[^"]*"', written) == []
    identifiers = re.findall(r' id="([^"]+)"', written)
    assert len(identifiers) == len({*identifiers})
    assert {*re.findall(r'href="#([^"]+)"', written)} <= {*identifiers}
    assert written.count("data:image/jpeg") == 3
    for part in ("Labels labels.zarr", "Run run", "By position", "By class", "Completeness", "training loss"):
        assert part in written
    assert f"--labels {finished_store}" in written


def test_without_the_images_the_rest_is_shown(
    page: Any, finished_store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CSKD_CACHE", str(tmp_path / "elsewhere"))
    written, done = page(finished_store)
    assert "the images were not found" in written and "the images were not found" in done.err
    assert "data:image" not in written and "By position" in written


def test_without_matplotlib_the_page_says_so(
    page: Any, finished_store: Path, finished_run: Path, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cskd_pipeline.pages import plots

    monkeypatch.setattr(plots, "can_plot", lambda: False)
    written, _ = page(finished_store, finished_run, "--data", toy, "--crops", "1")
    assert "pip install 'cskd-pipeline[report]'" in written.replace("&#x27;", "'")
    assert 'class="plot"' not in written and "ends at" in written


def test_a_damaged_block_is_left_out_and_named(page: Any, store: Path, toy: Path) -> None:
    for file in (store / "seed-000001/hard").rglob("*"):
        if file.is_file() and file.name != "zarr.json":
            file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    written, done = page(store, "--data", toy, "--crops", "1")
    assert "Left out: " in done.err and "By position" in written


def test_a_store_that_is_begun_says_so(page: Any, store: Path, toy: Path) -> None:
    for seed in (0, 1):
        for file in (store / f"seed-00000{seed}/commits").iterdir():
            file.unlink()
    written, _ = page(store, "--data", toy)
    assert "no block is committed yet" in written


def test_the_library_does_the_same(finished_run: Path, tmp_path: Path) -> None:
    done = cskd.report([finished_run], out=tmp_path / "page.html")
    assert done.runs == ("run",) and done.stores == () and done.file.exists()


def test_winners_and_true_classes_are_those_of_the_crops(finished_store: Path, toy: Path) -> None:
    store, index = StoreReader(str(finished_store)), open_split(str(toy), "train")
    recipe = CropRecipe.from_json(store.header.recipe)
    found = sample_labels(store, recipe, index, crops=64)
    assert found is not None and found.label_n is not None and found.encoding == "hard"
    again = sample_labels(store, recipe, index, crops=64)
    assert again is not None and np.array_equal(found.sample_n, again.sample_n)
    # At r = 0 every position has the global label.
    assert (found.winner_KnW[0] == found.winner_KnW[0, :, :1]).all()
    for seed, sample, true, winners in zip(
        found.seed_n, found.sample_n, found.label_n, found.winner_KnW[-1], strict=True
    ):
        block = int(sample) // store.header.block
        row = int(sample) - store.header.rows(block).start
        entry = store.encodings["hard"].tabulate(store.read(int(seed), block, "hard"), ratio_steps=1 << 16)[row]
        assert np.array_equal(entry.astype(int), winners)
        with CropLoader(index, recipe, workers=0) as loader:
            pair = np.unique([int(sample), *recipe.partners(int(seed), np.array([sample]), total=110)])
            batch = next(loader.load(sample_batches(recipe, int(seed), pair, total=110, batch=4)))
        labels = batch.labels(recipe, device="cpu")  # type: ignore[arg-type]
        at = batch.draws_B["sample"].tolist().index(int(sample))
        larger = labels.first_B if labels.weight_B[at] >= 0.5 else labels.second_B
        assert int(larger[at]) == true


def test_probabilities_are_those_of_the_whole_distribution(
    command: Any, precompute: list[object], tmp_path: Path
) -> None:
    """Of three classes the soft labels keep all, and `full` all logits: both give the same probabilities."""
    stores = {}
    for targets in ("soft", "full"):
        path = tmp_path / f"{targets}.zarr"
        assert command(*precompute, "--targets", targets, "--no-teacher-check", "--out", path).code == 0
        stores[targets] = StoreReader(str(path))
    steps = (0, 1 << 15, 1 << 16)
    found = {}
    for name, store in stores.items():
        records, winners = store.read(0, 0, name), np.ones((3, 32, 17), np.int64)
        found[name] = probabilities_of(store.encodings[name], records, winners, grid=(4, 4), steps=steps)
    np.testing.assert_allclose(found["soft"], found["full"], atol=0.08)  # soft labels round
    assert found["full"].std() > 0.1


def test_crops_that_are_not_mixed_have_their_own_class(toy: Path) -> None:
    index = open_split(str(toy), "train")
    recipe = dataclasses.replace(RECIPES["deit"], size=32, group=16, mixup=0.0, cutmix=0.0)
    labels = true_classes(recipe, index, np.zeros(8, np.int64), np.arange(8))
    assert labels.tolist() == index.labels[:8].tolist()
