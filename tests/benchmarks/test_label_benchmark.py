"""The benchmark of label formats measures what it says, on a handful of crops."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PAGE = BENCHMARKS.parent / "docs/benchmarks.md"
KEYS = (
    "bench",
    "set",
    "encoding",
    "records",
    "bytes_per_crop",
    "agreement",
    "kl",
    "encode_crops_s",
    "decode_crops_s",
    "gather_crops_s",
)
GRID, CLASSES, CROPS = (2, 2), 150, 64


@pytest.fixture(scope="module")
def labels() -> Iterator[ModuleType]:
    """The command's module, with which all others of the benchmark can be imported."""
    before = set(sys.modules)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import labels

        yield labels
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in set(sys.modules) - before:  # their names are short: keep them from other tests
            if str(getattr(sys.modules[name], "__file__", None)).startswith(str(BENCHMARKS)):
                del sys.modules[name]


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    dense = 3 * torch.randn(CROPS, 4, CLASSES, generator=random)
    return dense, dense.mean(1)


@pytest.mark.parametrize("name", ["topk10-fp16", "pickle-per-image", "tinyvit-top100"])
def test_a_peers_files_give_its_records_back_in_the_order_written(
    labels: ModuleType, logits: tuple[torch.Tensor, torch.Tensor], tmp_path: Path, name: str
) -> None:
    (kind,) = (kind for kind in labels.FORMATS if kind.name == name)
    format_ = kind(GRID, CLASSES)
    records = format_.encode(*logits)
    order = np.random.default_rng(0).permutation(CROPS)
    format_.write(tmp_path / "store", records, order)
    table = format_.load(tmp_path / "store")
    assert getattr(table, "records", table).tobytes() == records[order].tobytes()


def test_peers_keep_the_likeliest_classes_and_spread_the_rest(
    labels: ModuleType, logits: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    for kind in labels.FORMATS:
        format_ = kind(GRID, CLASSES)
        kept = {"topk10-fp16": 32, "pickle-per-image": 32, "tinyvit-top100": 100}.get(format_.name)
        if kept is None:
            continue
        format_.write(tmp_path / format_.name, format_.encode(*logits), np.arange(CROPS))
        table = format_.load(tmp_path / format_.name)
        decoded = format_.log_probabilities(table, np.arange(CROPS))[1].double().exp()
        truth = logits[1].double().softmax(1)
        for row in range(CROPS):
            best = truth[row].argsort(descending=True)
            torch.testing.assert_close(decoded[row, best[:kept]], truth[row, best[:kept]], rtol=6e-3, atol=1e-7)
            left = (1 - truth[row, best[:kept]].sum()) / (CLASSES - kept)
            torch.testing.assert_close(decoded[row, best[kept:]], left.expand(CLASSES - kept), rtol=0, atol=5e-5)


def test_tinyvit_records_are_four_bytes_and_four_for_every_class_kept(labels: ModuleType) -> None:
    (kind,) = (kind for kind in labels.FORMATS if kind.name == "tinyvit-top100")
    assert kind((7, 7), 1000).raw_bytes == 404


def test_repeated_crops_never_meet_in_a_chunk(labels: ModuleType) -> None:
    order = labels.repeated(2048, 10_000)
    assert (order[:2048] == np.arange(2048)).all()
    for chunk in np.split(order[: 9 * 1024], 9):
        assert len(np.unique(chunk)) == 1024


def test_synthetic_teachers_pool_and_are_as_sure_as_their_names_say(labels: ModuleType) -> None:
    import synthetic_logits

    sure = {}
    for name, regime in synthetic_logits.REGIMES.items():
        dense, global_ = synthetic_logits.SyntheticTeacher(regime, seed=0)(64)
        assert dense.shape == (64, 49, 1000)
        torch.testing.assert_close(global_, dense.mean(1), rtol=0, atol=0)
        sure[name] = float(dense.softmax(-1).amax(-1).mean())
    assert 0.3 < sure["flat"] < sure["mid"] < sure["peaky"] < 0.8


def test_the_command_writes_a_row_for_every_format_and_the_page(
    labels: ModuleType,
    logits: tuple[torch.Tensor, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page, found = tmp_path / "page.md", tmp_path / "rows.jsonl"
    page.write_text(PAGE.read_text())
    small = labels.LabelSet(labels.DEFAULT_SET, GRID, torch.cat([logits[1][:, None], logits[0]], 1).numpy())
    monkeypatch.setattr(labels, "open_set", lambda name, **options: small)
    words = ["--records", "64,100", "--compared", "16", "--repetitions", "1"]
    monkeypatch.setattr(sys, "argv", ["labels.py", *words, "--json", str(found), "--write", str(page)])
    labels.main()
    capsys.readouterr()
    rows = [json.loads(line) for line in found.read_text().splitlines()]
    assert {(row["encoding"], row["records"]) for row in rows} == {
        (kind.name, size) for kind in labels.FORMATS for size in (64, 100)
    }
    assert all(tuple(row)[: len(KEYS)] == KEYS for row in rows)
    first = {row["encoding"]: row for row in rows if row["records"] == 64}
    assert first["hard"]["agreement"] == 1
    assert 0.9 < first["topk10-fp16"]["agreement"] < 1
    assert first["tinyvit-top100"]["agreement"] is None
    assert first["hard"]["bytes_per_crop"] < first["soft"]["bytes_per_crop"] < first["topk10-fp16"]["bytes_per_crop"]
    text = page.read_text()
    assert "| tinyvit-top100 | 100 |" in text and str(tmp_path) not in text
    assert text.split("<!-- measured: begin -->")[0] == PAGE.read_text().split("<!-- measured: begin -->")[0]
