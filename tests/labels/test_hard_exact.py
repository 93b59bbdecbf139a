"""`hard` decodes to the fp32 argmax over all classes at every one of the 65,537 ratios."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hard_by_hand import records_by_hand, winners_at
from hypothesis import given, settings
from hypothesis import strategies as st

from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.labels import HardEncoding, StoredRows, encoding_from_json
from cskd_pipeline.labels.hard.records import HardRecords
from cskd_pipeline.ratio import RATIO_STEPS, fused


def logits(kind: str, positions: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random and adversarial logits (dense, global)."""
    generator = torch.Generator().manual_seed(seed)

    def normal() -> torch.Tensor:
        return torch.randn(positions, classes, generator=generator)

    def small_integers() -> torch.Tensor:
        return torch.randint(-2, 3, (positions, classes), generator=generator).float()

    match kind:
        case "normal":
            return normal() * 5, normal() * 2
        case "bf16":
            return normal().bfloat16().float(), normal().bfloat16().float()
        case "ties":
            return small_integers(), small_integers()
        case "nearly equal":
            return 1 + small_integers() * 2**-23, 1 + small_integers() * 2**-23
        case "all equal":
            return torch.ones(positions, classes), torch.ones(positions, classes)
        case "one line twice":
            d, g = normal(), normal()
            d[:, classes // 2 :], g[:, classes // 2 :] = (
                d[:, : (classes + 1) // 2],
                g[:, : (classes + 1) // 2],
            )
            return d, g
        case "huge":
            return normal() * 5e37, normal() * 5e37
        case "denormal":
            return normal() * 1e-39, normal() * 1e-39
        case "signed zeros":
            return small_integers() * 0.0, -small_integers() * 0.0
    raise AssertionError(kind)


KINDS = [
    "normal",
    "bf16",
    "ties",
    "nearly equal",
    "all equal",
    "one line twice",
    "huge",
    "denormal",
    "signed zeros",
]


UNCERTAIN = ("nearly equal", "denormal")
"""Kinds of which little is certain without a look at every ratio."""
SHAPES = [(1, 2), (1, 1000), (6, 30), (49, 200), (196, 100), (2, 21_841)]
"""(positions, classes)."""


def same(one: HardRecords, other: HardRecords) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        and getattr(one, name).dtype == getattr(other, name).dtype
        for name in ("colours_n", "palette_E", "count_nP", "code_M", "start_M")
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [2, 20])
def test_records_say_the_fp32_argmax_at_every_ratio(kind: str, classes: int) -> None:
    dense, global_ = logits(kind, 6, classes, seed=classes)
    dense_BPC, global_BC = dense.reshape(2, 3, classes), global_[:2]
    found = HardEncoding(positions=3, classes=classes).encode(dense_BPC, global_BC)
    assert same(found, records_by_hand(dense_BPC, global_BC))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.sampled_from(KINDS), st.integers(1, 12), st.integers(1, 40), st.integers(1, 3), st.integers(0, 2**20))
def test_records_of_any_shape_say_the_fp32_argmax_at_every_ratio(
    kind: str, positions: int, classes: int, crops: int, seed: int
) -> None:
    dense, global_ = logits(kind, crops * positions, classes, seed)
    dense_BPC, global_BC = dense.reshape(crops, positions, classes), global_[:crops]
    found = HardEncoding(positions=positions, classes=classes).encode(dense_BPC, global_BC)
    assert same(found, records_by_hand(dense_BPC, global_BC))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.sampled_from(KINDS), st.sampled_from(SHAPES), st.integers(0, 2**20))
def test_records_of_many_classes_say_the_fp32_argmax_between_and_at_changes(
    kind: str, shape: tuple[int, int], seed: int
) -> None:
    positions, classes = shape if kind not in UNCERTAIN else (3, 12)
    dense, global_ = logits(kind, positions, classes, seed)
    encoding = HardEncoding(positions=positions, classes=classes)
    records = encoding.encode(dense[None], global_[:1])
    starts = torch.from_numpy(records.start_M[:100].astype(np.int64))
    steps = torch.cat([torch.arange(0, RATIO_STEPS + 1, 1009), starts, starts + 1, torch.tensor([RATIO_STEPS])])
    expected = winners_at(dense, global_[:1].expand_as(dense), steps)
    for k, winner_P in zip(steps.tolist(), expected.T, strict=True):
        assert np.array_equal(encoding.tabulate(records, ratio_steps=k)[0, 1:], winner_P.numpy())


def test_fused_is_two_rounded_products_and_a_rounded_sum() -> None:
    dense, global_ = logits("normal", 50, 40, seed=3)
    for k in (0, 1, 12345, 40000, RATIO_STEPS):
        r = np.float32(k / RATIO_STEPS)
        expected = r * dense.numpy() + (np.float32(1) - r) * global_.numpy()
        assert (fused(dense, global_, k).numpy() == expected).all()
        assert (fused(dense, global_, torch.full((50, 1), k)).numpy() == expected).all()


def winners(encoding: HardEncoding, records: HardRecords, k: int) -> torch.Tensor:
    """int64 [n, 1 + P] after a way through stored bytes."""
    stored = encoding.pack(records, page=16)
    again = encoding.unpack(stored, page=16, count=len(records))
    assert same(again, records)
    return torch.from_numpy(encoding.tabulate(again, ratio_steps=k).astype(np.int64))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.sampled_from(KINDS), st.sampled_from(SHAPES), st.integers(0, 2**20), st.data())
def test_stored_targets_are_the_argmax_for_every_kind_and_shape(
    kind: str, shape: tuple[int, int], seed: int, data: st.DataObject
) -> None:
    positions, classes = shape if kind not in UNCERTAIN else (3, 12)
    dense, global_ = logits(kind, positions, classes, seed)
    encoding = HardEncoding(positions=positions, classes=classes, row_bytes=24)  # most spill
    records = encoding.encode(dense[None], global_[:1])
    steps = [0, 1, RATIO_STEPS, data.draw(st.integers(0, RATIO_STEPS))]
    for start in records.start_M[:20].tolist():
        steps += [start, start + 1]
    for k in steps:
        truth = winners_at(dense, global_[:1].expand(positions, -1), torch.tensor([k]))[:, 0]
        found = winners(encoding, records, k)[0]
        assert torch.equal(found[1:], truth)
        assert found[0] == global_[0].argmax()


@pytest.mark.parametrize("row_bytes", [0, 24, 60])
def test_pages_decode_to_the_argmax_whatever_spills(row_bytes: int) -> None:
    crops, classes = 40, 30
    encoding = HardEncoding(positions=12, classes=classes, row_bytes=row_bytes)
    dense, _ = logits("normal", crops * 12, classes, seed=1)
    dense_BPC = dense.reshape(crops, 12, classes)
    dense_BPC[7] = 3.0  # a crop without any change
    global_BC = dense_BPC.mean(1)
    parts = [encoding.encode(dense_BPC[i : i + 11], global_BC[i : i + 11]) for i in range(0, crops, 11)]
    records = HardRecords.joined(parts)
    assert same(records, encoding.encode(dense_BPC, global_BC))
    order = torch.randperm(crops, generator=torch.Generator().manual_seed(3)).numpy()
    assert same(records.take(order), encoding.encode(dense_BPC[order], global_BC[order]))
    stored = encoding.pack(records, page=16)
    assert stored.rows.shape == (48, encoding.field.row_bytes)
    assert (len(stored.spill) > 0) == (row_bytes > 0)
    for k in (0, 1, 100, 20_000, 32_768, 50_001, RATIO_STEPS - 1, RATIO_STEPS):
        found = winners(encoding, records, k)
        assert torch.equal(found[:, 1:], fused(dense_BPC, global_BC[:, None], k).argmax(-1))
        assert torch.equal(found[:, 0], global_BC.argmax(-1))


def test_more_changes_and_winners_than_a_byte_counts_are_exact() -> None:
    # 400 tangents of a parabola: line c is the highest for r near c/400, so every class wins in turn.
    classes = 400
    c = torch.arange(classes) / classes
    global_BC = (-(c**2))[None] * 8
    dense_BPC = (2 * c - c**2)[None, None] * 8
    encoding = HardEncoding(positions=1, classes=classes)
    records = encoding.encode(dense_BPC, global_BC)
    assert int(records.count_nP.max()) > 255 and int(records.colours_n.max()) > 256
    for k in range(0, RATIO_STEPS + 1, 997):
        assert winners(encoding, records, k)[0, 1] == fused(dense_BPC, global_BC[:, None], k).argmax()


def test_most_classes_a_palette_can_name_are_exact() -> None:
    dense, global_ = logits("normal", 2, 65_535, seed=4)
    encoding = HardEncoding(positions=2, classes=65_535)
    records = encoding.encode(dense[None], global_[:1])
    for k in (0, 30_000, RATIO_STEPS):
        assert torch.equal(winners(encoding, records, k)[0, 1:], fused(dense, global_[:1], k).argmax(-1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_are_refused(bad: float) -> None:
    dense = torch.zeros(2, 3, 4)
    dense[1, 2, 3] = bad
    with pytest.raises(DataError, match="not finite"):
        HardEncoding(positions=3, classes=4).encode(dense, torch.zeros(2, 4))
    global_ = torch.zeros(2, 4)
    global_[1, 0] = bad
    with pytest.raises(DataError, match="not finite"):
        HardEncoding(positions=3, classes=4).encode(torch.zeros(2, 3, 4), global_)


def page_of(encoding: HardEncoding) -> tuple[HardRecords, StoredRows]:
    dense, global_ = logits("normal", 20 * 4, 10, seed=5)
    records = encoding.encode(dense.reshape(20, 4, 10), global_[:20])
    return records, encoding.pack(records, page=20)


@pytest.mark.parametrize("row_bytes", [0, 24], ids=["in the page", "spilled"])
def test_a_page_with_other_lengths_is_refused(row_bytes: int) -> None:
    encoding = HardEncoding(positions=4, classes=10, row_bytes=row_bytes)
    _, stored = page_of(encoding)
    broken = [StoredRows(stored.rows[:, :-1], stored.spill), StoredRows(stored.rows[:-1], stored.spill)]
    for entry in range(4 if row_bytes == 0 else 6):
        rows = stored.rows.copy()
        rows.reshape(-1)[4 * entry : 4 * entry + 4].view("<u4")[:] += 1
        broken.append(StoredRows(rows, stored.spill))
    if row_bytes:
        broken.append(StoredRows(stored.rows, stored.spill[:-1]))
    for damaged in broken:
        with pytest.raises(DataError, match="no hard targets"):
            encoding.unpack(damaged, page=20, count=20)
    for count in (19, 21):
        with pytest.raises(DataError, match="no hard targets"):
            encoding.unpack(stored, page=20, count=count)


def test_a_page_may_be_exactly_full() -> None:
    records = page_of(HardEncoding(positions=4, classes=10))[0].take(np.array([0]))
    length = 24 + 1 + 4 + 2 * len(records.palette_E) + 3 * len(records.start_M)
    for row_bytes, spilled in ((length, 0), (length - 1, length - 24)):
        encoding = HardEncoding(positions=4, classes=10, row_bytes=row_bytes)
        stored = encoding.pack(records, page=1)
        assert len(stored.spill) == spilled
        assert same(encoding.unpack(stored, page=1, count=1), records)


def test_a_spill_holds_the_pages_in_order_and_nothing_else() -> None:
    encoding = HardEncoding(positions=4, classes=10, row_bytes=24)
    records, _ = page_of(encoding)
    stored = encoding.pack(records, page=5)
    header = stored.rows.reshape(4, -1)[:, :24].copy().view("<u4")
    assert (header[:, 3] == 4).all() and header[-1, 4:].sum() == len(stored.spill)
    assert same(encoding.unpack(stored, page=5, count=20), records)

    def with_offsets(offsets: list[int]) -> npt.NDArray[np.uint8]:
        rows = stored.rows.copy()
        rows.reshape(4, -1)[:, 16:20] = np.array(offsets, "<u4").view(np.uint8).reshape(4, 4)
        return rows

    first, length = header[:, 4].tolist(), header[0, 5]
    gap = np.insert(stored.spill, length, 7)
    for rows, spill in (
        (stored.rows, np.append(stored.spill, np.uint8(7))),
        (with_offsets([first[0], *(x + 1 for x in first[1:])]), gap),
        (with_offsets([x + 1 for x in first]), np.insert(stored.spill, 0, 7)),
        (stored.rows[:15], stored.spill),
    ):
        with pytest.raises(DataError, match="no hard targets"):
            encoding.unpack(StoredRows(rows, spill), page=5, count=len(rows))


def test_a_page_that_spills_without_need_is_refused() -> None:
    encoding = HardEncoding(positions=4, classes=10)
    _, stored = page_of(encoding)
    page = stored.rows.reshape(-1)
    length = int(np.flatnonzero(page != 255)[-1]) + 1 - 24
    moved = np.full_like(page, 255)
    moved[:24] = page[:24]
    moved[12:24] = np.array([4, 0, length], "<u4").view(np.uint8)
    with pytest.raises(DataError, match="no hard targets: a page with flags 4"):
        encoding.unpack(StoredRows(moved.reshape(20, -1), page[24 : 24 + length]), page=20, count=20)


@pytest.mark.parametrize("changes", [255, 256])
def test_counts_and_palettes_on_the_edge_of_a_byte_round_trip(changes: int) -> None:
    records = HardRecords(
        np.array([changes + 1]),
        np.arange(changes + 1, dtype=np.uint16),
        np.array([[changes]], np.uint16),
        np.arange(1, changes + 1, dtype=np.uint16),
        np.arange(changes, dtype=np.uint16) * 3,
    )
    encoding = HardEncoding(positions=1, classes=300, row_bytes=2000)
    stored = encoding.pack(records, page=1)
    assert stored.rows[0, :24].view("<u4")[3] == (3 if changes == 256 else 0)
    assert same(encoding.unpack(stored, page=1, count=1), records)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_a_damaged_page_is_refused_or_says_the_same(data: st.DataObject) -> None:
    encoding = HardEncoding(positions=4, classes=10)
    records, stored = page_of(encoding)
    rows = stored.rows.copy()
    rows.reshape(-1)[data.draw(st.integers(0, rows.size - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = encoding.unpack(StoredRows(rows, stored.spill), page=20, count=20)
    except DataError:
        return
    # What is left is a record that an encoder could have written, for other logits.
    assert not same(found, records)
    assert encoding.pack(found, page=20).rows.tobytes() == rows.tobytes()


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("palette_E", lambda x, r: x.__setitem__(0, 10), "class"),
        ("palette_E", lambda x, r: x.__setitem__(1, x[0]), "twice in a palette"),
        ("code_M", lambda x, r: x.__setitem__(0, 2), "out of order"),
        ("code_M", lambda x, r: x.__setitem__(0, 0), "wins already|out of order"),
        ("start_M", lambda x, r: x.__setitem__(slice(0, 2), x[1::-1].copy()), "do not ascend"),
        ("start_M", lambda x, r: x.__setitem__(1, x[0]), "do not ascend"),
        ("colours_n", lambda x, r: x.__setitem__(slice(None), [x[0] + 1, *x[1:-1], x[-1] - 1]), "palette"),
    ],
)
def test_records_that_no_encoder_writes_are_refused(name: str, change: Any, message: str) -> None:
    # One crop whose first position changes twice, and one that is like it.
    records = HardRecords(
        np.array([3, 3]),
        np.array([4, 7, 2, 4, 7, 2], np.uint16),
        np.array([[2, 1], [2, 1]], np.uint16),
        np.array([1, 2, 1, 1, 2, 1], np.uint16),
        np.array([5, 90, 7, 5, 90, 7], np.uint16),
    )
    encoding = HardEncoding(positions=2, classes=10)
    assert same(encoding.unpack(encoding.pack(records, page=2), page=2, count=2), records)
    change(getattr(records, name), records)
    with pytest.raises(DataError, match=message):
        encoding.unpack(encoding.pack(records, page=2), page=2, count=2)


def test_records_compare_crop_by_crop() -> None:
    encoding = HardEncoding(positions=4, classes=10)
    records, _ = page_of(encoding)
    assert records.equal(records).all()
    dense, global_ = logits("normal", 20 * 4, 10, seed=5)
    dense[4 * 7] += torch.arange(10.0) * 3
    other = encoding.encode(dense.reshape(20, 4, 10), global_[:20])
    assert np.flatnonzero(~records.equal(other)).tolist() == [7]


def test_too_many_classes_are_refused() -> None:
    with pytest.raises(UsageError, match="at most 65535, found 70000"):
        HardEncoding(positions=4, classes=70_000)


def test_settings_round_trip() -> None:
    encoding = HardEncoding(positions=49, classes=1000)
    assert encoding_from_json(encoding.to_json()) == encoding
    assert encoding.field.row_bytes == 32 + 8 * 49
    with pytest.raises(UsageError, match="row_bytes must be at least 24, found 3"):
        HardEncoding(positions=49, classes=1000, row_bytes=3)


@pytest.mark.parametrize("ratio_steps", [-1, RATIO_STEPS + 1, 0.5])
def test_a_ratio_that_is_no_number_of_steps_is_refused(ratio_steps: Any) -> None:
    encoding = HardEncoding(positions=4, classes=10)
    dense, global_ = logits("normal", 4, 10, 0)
    with pytest.raises(UsageError, match=rf"ratio_steps .* found {ratio_steps}"):
        encoding.tabulate(encoding.encode(dense[None], global_[:1]), ratio_steps=ratio_steps)
