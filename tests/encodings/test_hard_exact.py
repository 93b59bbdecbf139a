"""`hard` decodes to the fp32 argmax over all classes at every one of the 65,537 ratios."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cskd_pipeline.encodings import EncodedRows, HardEncoding, encoding_from_json
from cskd_pipeline.encodings.envelope import envelope
from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.records.ratio import RATIO_STEPS, fused


def brute_force(dense_NC: torch.Tensor, global_NC: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """int64 [N, len(steps)]: the definition, evaluated for all classes in NumPy's fp32."""
    d, g = dense_NC.numpy(), global_NC.numpy()
    out = np.empty((len(d), len(steps)), np.int64)
    for first in range(0, len(steps), 4096):
        r = (steps[first : first + 4096].numpy() / RATIO_STEPS).astype(np.float32)[None, :, None]
        out[:, first : first + 4096] = (r * d[:, None] + (np.float32(1) - r) * g[:, None]).argmax(axis=2)
    return torch.from_numpy(out)


def step_function(dense_NC: torch.Tensor, global_NC: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    segments = envelope(dense_NC, global_NC)
    out = torch.full((len(dense_NC), len(steps)), -1)
    for position, start, winner in zip(
        segments.position_M.tolist(), segments.start_M.tolist(), segments.winner_M.tolist(), strict=True
    ):
        out[position, steps >= start] = winner
    return out


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [2, 20])
def test_envelope_is_the_fp32_argmax_at_every_ratio(kind: str, classes: int) -> None:
    every = torch.arange(0, RATIO_STEPS + 1)
    dense, global_ = logits(kind, 3, classes, seed=classes)
    assert torch.equal(step_function(dense, global_, every), brute_force(dense, global_, every))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.sampled_from(KINDS), st.integers(1, 1000), st.integers(0, 2**20), st.randoms(use_true_random=False))
def test_envelope_is_the_fp32_argmax_at_random_ratios_and_at_every_breakpoint(
    kind: str, classes: int, seed: int, random: object
) -> None:
    dense, global_ = logits(kind, 4, classes, seed)
    starts = envelope(dense, global_).start_M[:200]
    grid = torch.arange(0, RATIO_STEPS + 1, 1009)
    steps = torch.cat([grid, starts, (starts - 1).clamp(min=0), torch.tensor([RATIO_STEPS])]).unique()
    assert torch.equal(step_function(dense, global_, steps), brute_force(dense, global_, steps))


def test_fused_is_two_rounded_products_and_a_rounded_sum() -> None:
    dense, global_ = logits("normal", 50, 40, seed=3)
    for k in (0, 1, 12345, 40000, RATIO_STEPS):
        r = np.float32(k / RATIO_STEPS)
        expected = r * dense.numpy() + (np.float32(1) - r) * global_.numpy()
        assert (fused(dense, global_, k).numpy() == expected).all()
        assert (fused(dense, global_, torch.full((50, 1), k)).numpy() == expected).all()


@pytest.mark.parametrize("palette, changes", [(0, 0), (5, 1), (6, 12)])
def test_rows_decode_to_the_argmax_whatever_overflows(palette: int, changes: int) -> None:
    crops, grid, classes = 40, (3, 4), 30
    encoding = HardEncoding(positions=12, classes=classes, palette=palette, changes=changes)
    dense, _ = logits("normal", crops * 12, classes, seed=1)
    dense_BPC = dense.reshape(crops, 12, classes)
    dense_BPC[7] = 3.0  # a crop without any change
    global_BC = dense_BPC.mean(1)
    parts = [encoding.encode(dense_BPC[i : i + 11], global_BC[i : i + 11]) for i in range(0, crops, 11)]
    encoded = encoding.join(parts)
    assert encoded.rows.shape == (crops, encoding.field.row_bytes)
    assert (len(encoded.spill) > 0) == (changes in (1, 12))
    for k in (0, 1, 100, 20_000, 32_768, 50_001, RATIO_STEPS - 1, RATIO_STEPS):
        targets = encoding.decode(encoded, grid=grid, ratio_steps=k)
        assert targets.hard_dense_BHW is not None and targets.hard_global_B is not None
        fusion = fused(dense_BPC, global_BC[:, None], k)
        assert torch.equal(targets.hard_dense_BHW.reshape(crops, 12), fusion.argmax(-1))
        assert torch.equal(targets.hard_global_B, global_BC.argmax(-1))


def test_more_changes_at_one_position_than_a_byte_counts_are_exact() -> None:
    # 400 tangents of a parabola: line c is the highest for r near c/400, so every class wins in turn.
    classes = 400
    c = torch.arange(classes) / classes
    global_BC = (-(c**2))[None] * 8
    dense_BPC = (2 * c - c**2)[None, None] * 8
    encoding = HardEncoding(positions=1, classes=classes)
    encoded = encoding.encode(dense_BPC, global_BC)
    assert len(encoded.spill) > 0
    for k in range(0, RATIO_STEPS + 1, 997):
        targets = encoding.decode(encoded, grid=(1, 1), ratio_steps=k)
        assert targets.hard_dense_BHW is not None
        assert targets.hard_dense_BHW.item() == fused(dense_BPC, global_BC[:, None], k).argmax().item()


def test_most_classes_a_row_can_name_are_exact() -> None:
    dense, global_ = logits("normal", 2, 65_535, seed=4)
    encoding = HardEncoding(positions=2, classes=65_535)
    encoded = encoding.encode(dense[None], global_[:1])
    for k in (0, 30_000, RATIO_STEPS):
        targets = encoding.decode(encoded, grid=(1, 2), ratio_steps=k)
        assert targets.hard_dense_BHW is not None
        assert torch.equal(targets.hard_dense_BHW.flatten(), fused(dense, global_[:1], k).argmax(-1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_are_refused(bad: float) -> None:
    dense = torch.zeros(2, 3, 4)
    dense[1, 2, 3] = bad
    with pytest.raises(DataError, match="not finite"):
        HardEncoding(positions=3, classes=4).encode(dense, torch.zeros(2, 4))


def test_damaged_rows_are_refused() -> None:
    encoding = HardEncoding(positions=4, classes=10, palette=5, changes=3)
    dense, global_ = logits("normal", 20, 10, seed=5)
    dense[:4] = global_[:1]  # crop 0 has no change and fits; others overflow
    encoded = encoding.encode(dense.reshape(5, 4, 10), global_[:5])
    row = encoding._row

    def damaged(field: str, at: tuple[int, ...], value: int) -> EncodedRows:
        rows = encoded.rows.copy().view(row).reshape(-1)
        rows[field][at] = value
        return EncodedRows(rows.view(np.uint8).reshape(5, -1), encoded.spill)

    spilled = int(np.flatnonzero(encoded.rows.view(row).reshape(-1)["count"][:, 0] == 255)[0])
    for broken in (
        damaged("palette", (0, 0), 10),
        damaged("count", (0, 1), 200),
        damaged("palette", (spilled, 1), 60_000),
        damaged("palette", (spilled, 3), 7),
        EncodedRows(encoded.rows[:, :-1], encoded.spill),
        EncodedRows(encoded.rows, encoded.spill[:-1]),
    ):
        with pytest.raises(DataError):
            for k in (0, 30_000, RATIO_STEPS):
                encoding.winners(broken, k)


def test_too_many_classes_are_refused() -> None:
    with pytest.raises(UsageError, match="65535, found 70000"):
        HardEncoding(positions=4, classes=70_000)


def test_settings_round_trip() -> None:
    encoding = HardEncoding(positions=49, classes=1000)
    assert encoding_from_json(encoding.to_json()) == encoding
    assert encoding.field.row_bytes == 2 * 64 + 49 + 196 + 2 * 196


def test_changes_out_of_order_are_found_by_check() -> None:
    encoding = HardEncoding(positions=4, classes=10)
    dense, global_ = logits("normal", 40, 10, seed=6)
    encoded = encoding.encode(dense.reshape(10, 4, 10), global_[:10])
    encoding.check(encoded)
    rows = encoded.rows.copy().view(encoding._row).reshape(-1)
    crop, position = np.argwhere(rows["count"] >= 2)[0]
    at = int(rows["count"][crop, :position].sum())
    rows["start"][crop, at : at + 2] = rows["start"][crop, at : at + 2][::-1].copy()
    with pytest.raises(DataError, match="do not ascend"):
        encoding.check(EncodedRows(rows.view(np.uint8).reshape(10, -1), encoded.spill))
