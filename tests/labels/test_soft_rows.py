"""Soft rows say what the teacher said, are the same everywhere, and are refused when damaged."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from soft_by_hand import read_row
from torch import Tensor

from cskd_pipeline.batch import SparseTargets
from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.labels import SoftEncoding, StoredRows
from cskd_pipeline.labels.base import FixedRows
from cskd_pipeline.labels.soft.encode import _leaders
from cskd_pipeline.losses import densify, global_on_palette, on_palette, soft_fidelity
from cskd_pipeline.ratio import RATIO_STEPS

SMALL = SoftEncoding(positions=2, classes=6, k=3, global_k=2, bits=4, palette=5)


def teacher(crops: int, positions: int, classes: int, *, scale: float = 3.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    dense = scale * torch.randn(crops, positions, classes, generator=generator)
    return dense + scale * torch.randn(crops, 1, classes, generator=generator), dense.mean(1)


def sparse(encoding: SoftEncoding, records: FixedRows) -> SparseTargets:
    grid = (1, encoding.positions)
    targets = encoding.targets(records.rows, grid=grid, ratio_steps=0, device=torch.device("cpu"))
    assert targets.sparse is not None
    return targets.sparse


def test_a_small_row_holds_these_bytes() -> None:
    g = torch.tensor([[3.0, 0.0, 5.0, -40.0, 1.0, 2.0]])
    d = torch.tensor([[[0.0, 7.0, 7.0, -30.0, 4.0, 1.0], [9.0, -9.0, 0.0, 6.0, 2.0, 8.0]]])
    row = SMALL.encode(d, g).rows[0].tolist()
    fields = SMALL.layout.fields()
    found = {name: row[fields[name]] for name in ("shared", "others", "palette_low", "palette_high", "global_tail")}
    # 2 and 0 are the global leaders. Then 1, 3, 5 by ascending class as gaps; class 4 has the least mass and no slot.
    assert found == {
        "shared": [2],
        "others": [3],
        "palette_low": [2, 0, 1, 1, 1],
        "palette_high": [0] * 5,
        "global_tail": [16 - 3],  # log((e^0 + e^1 + e^2) / e^5) = -2.6
    }
    assert row[fields["global_step"]] == [2]
    assert row[fields["tail"]] == [16 - 3, 16 - 7]  # log((e^0 + e^4 + e^1) / e^7) = -2.9; log((e^0 + e^2) / e^9) = -6.9
    assert row[fields["slot"]] == [2, 1, 0, 4, 255, 3]  # rank by rank; 1 comes before 2, with which it ties
    assert row[fields["step"]] == [0, 1, 0, 2]
    assert len(row) == SMALL.layout.row_bytes == 2 + 2 * 5 + 1 + 1 + 2 + 3 * 2 + 2 * 2


@pytest.mark.parametrize(
    "encoding",
    [
        SMALL,
        SoftEncoding(positions=4, classes=2),
        SoftEncoding(positions=1, classes=1, k=1, global_k=1),
        SoftEncoding(positions=9, classes=300, k=4, global_k=10, bits=7, palette=20),
        SoftEncoding(positions=3, classes=300, k=1, global_k=1, bits=3, palette=2),
    ],
    ids=str,
)
@pytest.mark.parametrize("scale", [3.0, 0.01])  # nearly equal logits: tails rounded up must not outrank kept classes
def test_the_decoded_distributions_are_those_of_the_format_page(encoding: SoftEncoding, scale: float) -> None:
    records = encoding.encode(*teacher(6, encoding.positions, encoding.classes, scale=scale))
    targets = sparse(encoding, records)
    g = densify(global_on_palette(targets), classes=encoding.classes)[:, :, 0]
    d = densify(on_palette(targets, ratio_steps=RATIO_STEPS), classes=encoding.classes)
    for crop, row in enumerate(records.rows):
        (global_log, *dense_logs), _ = read_row(row, encoding)
        torch.testing.assert_close(g[crop], torch.tensor(global_log).log_softmax(0), atol=1e-5, rtol=0)
        for p, log in enumerate(dense_logs):
            torch.testing.assert_close(d[crop, :, p], torch.tensor(log).log_softmax(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("bits", [3, 5, 7])
def test_kept_classes_are_the_likeliest_and_their_odds_are_within_half_a_step(bits: int, ties: bool) -> None:
    encoding = SoftEncoding(positions=20, classes=300, k=5, global_k=8, bits=bits)
    dense, global_ = teacher(5, 20, 300)
    if ties:  # the lowest class first
        dense, global_ = dense.div(4).round(), global_.div(4).round()
    for row, d, g in zip(encoding.encode(dense, global_).rows, dense, global_, strict=True):
        logs, kept = read_row(row, encoding)
        for log, classes, logits in zip(logs, kept, [g, *d], strict=True):
            order = logits.argsort(descending=True, stable=True).tolist()
            assert classes == [c for c in order[: len(classes)] if logits[order[0]] - logits[c] <= 16]
            assert len(classes) in (5, 8) or logits[order[0]] - logits[order[len(classes)]] > 16
            odds = (logits - logits[order[0]]).numpy()
            np.testing.assert_allclose(log[classes], odds[classes], atol=16 / 2**bits / 2 + 1e-5)


def test_classes_without_room_in_the_palette_go_to_the_tail_lowest_mass_first() -> None:
    dense, global_ = teacher(8, 16, 100)
    roomy, tight = (SoftEncoding(positions=16, classes=100, k=4, global_k=4, palette=size) for size in (100, 12))
    all_kept, some_kept = ([read_row(row, e)[1][1:] for row in e.encode(dense, global_).rows] for e in (roomy, tight))
    mass = dense.softmax(2)
    for crop in range(8):
        palette = {c for classes in some_kept[crop] for c in classes}
        lists = zip(all_kept[crop], some_kept[crop], strict=True)
        assert all(few == [c for c in many if c in palette] for many, few in lists)
        weight = {
            c: sum(float(mass[crop, p, c]) for p, classes in enumerate(all_kept[crop]) if c in classes)
            for c in {c for classes in all_kept[crop] for c in classes}
        }
        top = set(global_[crop].argsort(descending=True)[:4].tolist())
        left_out = max((w for c, w in weight.items() if c not in palette), default=0.0)
        taken = min(w for c, w in weight.items() if c in palette - top)
        assert left_out < 1.3 * taken  # masses are compared as they decode
    tail_BP = sparse(tight, tight.encode(dense, global_)).tail_BP
    for crop, p in np.ndindex(8, 16):
        classes = some_kept[crop][p]
        expected = ((1 - mass[crop, p, classes].sum()) / mass[crop, p, classes[0]]).log() if classes else 0
        assert abs(float(tail_BP[crop, p]) - float(expected)) <= 0.25 + 1e-4


def test_a_position_may_be_left_without_classes() -> None:
    encoding = SoftEncoding(positions=3, classes=9, k=1, global_k=1, palette=2)
    dense = torch.eye(9)[None, [3, 3, 5]] * 6
    records = encoding.encode(dense, torch.eye(9)[[3]] * 5 + torch.eye(9)[[1]])
    assert read_row(records.rows[0], encoding)[1] == [[3], [3], [3], [5]]
    encoding = dataclasses.replace(encoding, palette=1)
    records = encoding.encode(dense, torch.eye(9)[[3]] * 5)
    logs, kept = read_row(records.rows[0], encoding)
    assert kept == [[3], [3], [3], []]
    decoded = densify(on_palette(sparse(encoding, records), ratio_steps=RATIO_STEPS), classes=9)
    torch.testing.assert_close(decoded[0, :, 2], torch.tensor(logs[3]).log_softmax(0), atol=1e-5, rtol=0)
    records.rows[0, encoding.layout.fields()["tail"].start + 2] += 1
    with pytest.raises(DataError, match="a position without classes"):
        encoding.unpack(encoding.pack(records, page=1), page=1, count=1)


@st.composite
def cases(draw: st.DrawFn) -> tuple[SoftEncoding, Tensor, Tensor]:
    classes = draw(st.sampled_from([1, 2, 3, 10, 1000, 21841]))
    positions = draw(st.sampled_from([1, 4] if classes > 1000 else [1, 49, 196]))
    palette = draw(st.integers(1, 255))
    encoding = SoftEncoding(
        positions=positions,
        classes=classes,
        k=draw(st.integers(1, 8)),
        global_k=draw(st.integers(1, palette)),
        bits=draw(st.integers(3, 7)),
        palette=palette,
    )
    scale = draw(st.sampled_from([0.0, 1e-30, 1.0, 30.0, 1e30, 3e38]))
    dense, global_ = teacher(3, positions, classes, scale=1.0, seed=draw(st.integers(0, 99)))
    if draw(st.booleans()):
        dense, global_ = dense.round(), global_.round()  # many ties
    return encoding, (dense.clamp(-1, 1) if scale > 1e30 else dense) * scale, global_.clamp(-1, 1) * scale


@given(cases())
@settings(derandomize=True, max_examples=60, deadline=None)
def test_any_finite_logits_round_trip_and_decode_to_finite_distributions(
    case: tuple[SoftEncoding, Tensor, Tensor],
) -> None:
    encoding, dense, global_ = case
    records = encoding.encode(dense, global_)
    for page in (1, 2, 8):
        unpacked = encoding.unpack(encoding.pack(records, page=page), page=page, count=3)
        assert bool(unpacked.equal(records).all())
    for crop in range(3):  # in other company
        alone = encoding.encode(dense[crop : crop + 1], global_[crop : crop + 1])
        assert bool(alone.equal(records.take(np.array([crop]))).all())
    targets = sparse(encoding, records)
    for steps in (0, 30000, RATIO_STEPS):
        log = densify(on_palette(targets, ratio_steps=steps), classes=encoding.classes)
        assert bool(log.isfinite().all())
        torch.testing.assert_close(log.exp().sum(1), torch.ones_like(log[:, 0]), atol=1e-4, rtol=0)
    assert all(np.isfinite(values).all() for values in soft_fidelity(targets, dense, global_).values())


def test_the_mass_of_many_classes_does_not_depend_on_the_company() -> None:
    # Libraries split a lone long sum over threads, and many short ones not.
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        logits = torch.randn(8, 65_535, generator=torch.Generator().manual_seed(0)) * 3
        together = _leaders(logits, 4).rest_N
        alone = torch.cat([_leaders(logits[i : i + 1], 4).rest_N for i in range(8)])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(together, alone)


def test_a_class_exactly_16_nats_below_the_first_is_kept() -> None:
    logits = torch.tensor([8.0, -8.0, -8.00001, -20.0, -20.0, -20.0])
    row = SMALL.encode(logits[None, None].expand(1, SMALL.positions, -1), logits[None]).rows[0]
    fields = SMALL.layout.fields()
    assert row[fields["shared"]][0] == 2
    assert (row[fields["slot1"]] != 255).all() and (row[fields["slot2"]] == 255).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["dense", "global"])
def test_logits_that_are_not_finite_are_refused(value: float, where: str) -> None:
    dense, global_ = teacher(2, 2, 6)
    (dense[0, 1] if where == "dense" else global_[1])[3] = value
    with pytest.raises(DataError, match="not finite"):
        SMALL.encode(dense, global_)


def damage() -> list[tuple[str, int, int, str]]:
    """Field, byte of it and a value that no encoder writes to the row below, and what is said."""
    return [
        ("shared", 0, 0, "size of a palette"),
        ("shared", 0, 3, "size of a palette"),
        ("others", 0, 200, "size of a palette"),
        ("others", 0, 5, "size of a palette"),
        ("palette_low", 0, 10, "does not exist"),
        ("palette_high", 0, 1, "does not exist"),
        ("palette_low", 1, 2, "twice in a palette"),
        ("palette_low", 3, 9, "does not exist"),
        ("palette_low", 5, 1, "unused slot"),
        ("palette_high", 5, 1, "unused slot"),
        ("global_tail", 0, 32, "mass of a tail"),
        ("global_step", 0, 17, "too unlikely"),
        ("tail", 1, 255, "mass of a tail"),
        ("slot", 0, 5, "palette does not have"),
        ("slot", 0, 255, "gap in the list"),
        ("slot", 2, 2, "twice at a position"),
        ("step", 2, 17, "too unlikely"),
        ("step", 3, 1, "not kept"),
    ]


@pytest.mark.parametrize(("field", "byte", "value", "message"), damage())
def test_damaged_rows_are_refused(field: str, byte: int, value: int, message: str) -> None:
    encoding = dataclasses.replace(SMALL, palette=6, classes=9)
    g = torch.tensor([[3.0, 0.0, 5.0, -40.0, 1.0, 2.0, -50, -50, -50]])
    d = torch.tensor(
        [[[0.0, 7.0, 7.0, -30.0, 4.0, 1.0, -50, -50, -50], [9.0, -9.0, -9.0, -9.0, -9.0, 8.0, -9, -9, -9]]]
    )
    records = encoding.encode(d, g)
    stored = encoding.pack(records, page=1)  # a page of one crop is its row
    assert encoding.unpack(stored, page=1, count=1).rows.tolist() == records.rows.tolist()
    at = encoding.layout.fields()[field].start + byte
    assert stored.rows[0, at] != value
    stored.rows[0, at] = value
    with pytest.raises(DataError, match=message):
        encoding.unpack(stored, page=1, count=1)


def test_pages_of_another_form_are_refused() -> None:
    stored = SMALL.pack(SMALL.encode(*teacher(3, 2, 6)), page=4)
    for rows in (stored.rows[:3], stored.rows[:, 1:], stored.rows.astype(np.int16), stored.rows[:0]):
        with pytest.raises(DataError, match="no soft targets: rows of"):
            SMALL.unpack(StoredRows(rows, stored.spill), page=4, count=3)
    with pytest.raises(DataError, match="more crops"):
        SMALL.unpack(stored, page=4, count=2)
    with pytest.raises(DataError, match="no soft targets"):
        SMALL.unpack(StoredRows(np.full_like(stored.rows, 255), stored.spill), page=4, count=3)


def test_random_bytes_are_refused_or_decode_to_finite_distributions() -> None:
    encoding = SoftEncoding(positions=2, classes=12, k=2, global_k=3, bits=4, palette=6)
    rows = encoding.encode(*teacher(40, 2, 12)).rows
    generator = np.random.default_rng(0)
    refused = 0
    for trial in range(400):
        row = rows[trial % 40 : trial % 40 + 1].copy()
        row[0, generator.integers(row.shape[1])] = generator.integers(8)
        try:
            records = encoding.unpack(StoredRows(row, np.empty(0, np.uint8)), page=1, count=1)
        except DataError:
            refused += 1
            continue
        decoded = densify(on_palette(sparse(encoding, records), ratio_steps=RATIO_STEPS), classes=12)
        assert bool(decoded.isfinite().all())
    assert refused > 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 8}, "bits must be at most 7"),
        ({"bits": 2}, "bits must be at least 3"),
        ({"classes": 65536}, "classes must be at most 65535"),
        ({"palette": 256}, "palette must be at most 255"),
        ({"k": 0}, "k must be at least 1"),
        ({"global_k": 129}, "a palette of 128 has no room for global_k 129"),
        ({"palette": "many"}, "palette must be a whole number"),
        ({"palette": 20}, "a palette of 20 has no room for global_k 48"),
        ({"positions": 0}, "positions must be at least 1"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SoftEncoding(**{"positions": 4, "classes": 10, **change})


def test_fidelity_is_what_the_definitions_say() -> None:
    encoding = SoftEncoding(positions=3, classes=20, k=3, global_k=4)
    dense, global_ = teacher(2, 3, 20)
    records = encoding.encode(dense, global_)
    found = soft_fidelity(sparse(encoding, records), dense, global_)
    for crop, row in enumerate(records.rows):
        logs, kept = read_row(row, encoding)
        logits = [global_[crop], *dense[crop]]
        true = [x.double().softmax(0) for x in logits]
        kl = [
            float((p * (p.log() - torch.tensor(log).log_softmax(0))).sum()) for p, log in zip(true, logs, strict=True)
        ]
        mass = [float(p[classes].sum()) for p, classes in zip(true, kept, strict=True)]
        expected = {
            "kl_global": kl[0],
            "kl_dense": np.mean(kl[1:]),
            "kept_global": mass[0],
            "kept_dense": np.mean(mass[1:]),
        }
        assert {name: values[crop] for name, values in found.items()} == pytest.approx(expected, abs=1e-6)
