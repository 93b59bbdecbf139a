"""Features decode to what the teacher showed, within half a step, and damaged rows and settings are refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cskd_pipeline.batch import Features
from cskd_pipeline.crops.draws import draw_positions
from cskd_pipeline.crops.recipe import RECIPES
from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.labels import Encoding, PooledEncoding, StoredRows, TokensEncoding, encodings_from_json
from cskd_pipeline.labels.base import FixedRows
from cskd_pipeline.labels.features.quantise import channel_scales, dequantise, measure_channels, quantise

CPU = torch.device("cpu")
NOTHING = torch.zeros(0)
"""Logits, which features do not read."""

POOLED = PooledEncoding(positions=6, classes=3, channels=(0, 4, -3, 1, 2))
TOKENS = TokensEncoding(
    positions=11, classes=3, channels=((0, 4, -3), (1, 0, 2)), layers=(0, -1), tokens=4, bits=(4, 8)
)


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def words(crops: int, positions: int, *, seed: int = 0) -> Tensor:
    return torch.from_numpy(draw_positions(RECIPES["deit"], seed, np.arange(crops), positions=positions))


def encoded(encoding: Encoding, *, pooled: Tensor | None = None, tokens: Tensor | None = None) -> FixedRows:
    drawn = None if tokens is None else words(len(tokens), encoding.positions)
    records = encoding.encode(NOTHING, NOTHING, None, Features(pooled, tokens, drawn))
    assert isinstance(records, FixedRows)
    return records


def decoded_pooled(encoding: PooledEncoding, records: FixedRows) -> Tensor:
    targets = encoding.targets(records.rows, grid=(1, encoding.positions), ratio_steps=0, device=CPU)
    assert targets.pooled_BD is not None
    return targets.pooled_BD


def decoded_tokens(encoding: TokensEncoding, records: FixedRows) -> tuple[Tensor, Tensor]:
    targets = encoding.targets(records.rows, grid=(1, encoding.positions), ratio_steps=0, device=CPU)
    assert targets.tokens is not None
    return targets.tokens.values_BLnD, targets.tokens.kept_Bn


@st.composite
def vectors(draw: st.DrawFn) -> tuple[Tensor, tuple[int, ...], int]:
    """Vectors, scales of their channels, and bits."""
    width = draw(st.integers(1, 40))
    channels = draw(st.lists(st.integers(-256, 256), min_size=width, max_size=width))
    scaled = values(3, width, seed=draw(st.integers(0, 999))) * draw(st.sampled_from([0.0, 1e-30, 1e-6, 1.0, 1e4]))
    if draw(st.booleans()):
        scaled[1] = 0
    if draw(st.booleans()):
        scaled[:, draw(st.integers(0, width - 1))] *= 10
    return (
        scaled * torch.from_numpy(channel_scales(tuple(channels))),
        tuple(channels),
        draw(st.sampled_from([4, 5, 6, 7, 8])),
    )


@given(vectors())
@settings(derandomize=True, max_examples=100, deadline=None)
def test_any_vector_comes_back_within_half_a_step(case: tuple[Tensor, tuple[int, ...], int]) -> None:
    said_nD, channels, bits = case
    scale_n, code_nY = quantise(said_nD, channels, bits=bits, what="features")
    levels, width = 2 ** (bits - 1) - 1, len(channels)
    assert code_nY.shape == (3, -(-width // 2) if bits == 4 else width) and code_nY.dtype == torch.uint8
    decoded_nD = dequantise(scale_n, code_nY, channels, bits=bits)
    # A scale below 2^-14 is itself rounded, to a multiple of 2^-24.
    step_nD = scale_n.double()[:, None] * torch.from_numpy(channel_scales(channels)).double()
    coarse_D = levels * 2.0**-25 * torch.from_numpy(channel_scales(channels)).double()
    error_nD = (decoded_nD.double() - said_nD.double()).abs()
    assert bool((error_nD <= 0.50001 * step_nD + coarse_D + 1e-6 * said_nD.abs()).all())
    assert bool((decoded_nD[said_nD.abs().amax(1) == 0] == 0).all())

    encoding = PooledEncoding(positions=1, classes=2, channels=channels, bits=bits)
    records = encoded(encoding, pooled=said_nD)
    assert torch.equal(decoded_pooled(encoding, records), decoded_nD)
    assert bool(encoding.unpack(encoding.pack(records, page=2), page=2, count=3).equal(records).all())
    for crop in range(3):  # in other company
        alone = encoded(encoding, pooled=said_nD[crop : crop + 1])
        assert bool(alone.equal(records.take(np.array([crop]))).all())
        assert torch.equal(decoded_pooled(encoding, alone)[0], decoded_nD[crop])


@st.composite
def token_cases(draw: st.DrawFn) -> tuple[TokensEncoding, Tensor]:
    depth, width, positions = draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 30))
    encoding = TokensEncoding(
        positions=positions,
        classes=2,
        channels=tuple(tuple(draw(st.lists(st.integers(-9, 9), min_size=width, max_size=width))) for _ in range(depth)),
        layers=tuple(range(depth)),
        tokens=draw(st.integers(0, positions)),
        bits=tuple(draw(st.lists(st.sampled_from([4, 5, 6, 7, 8]), min_size=depth, max_size=depth))),
    )
    return encoding, values(3, depth, positions, width, seed=draw(st.integers(0, 999)))


@given(token_cases())
@settings(derandomize=True, max_examples=60, deadline=None)
def test_any_tokens_come_back_within_half_a_step_at_the_positions_with_the_least_words(
    case: tuple[TokensEncoding, Tensor],
) -> None:
    encoding, said_BLPD = case
    records = encoded(encoding, tokens=said_BLPD)
    found_BLnD, kept_Bn = decoded_tokens(encoding, records)
    drawn = words(3, encoding.positions).tolist()
    count = encoding.tokens or encoding.positions
    least = [sorted(sorted(range(encoding.positions), key=row.__getitem__)[:count]) for row in drawn]
    assert kept_Bn.tolist() == least
    for crop in range(3):
        for layer, (channels, bits) in enumerate(zip(encoding.channels, encoding.bits, strict=True)):
            said_nD = said_BLPD[crop, layer, least[crop]]
            expected = dequantise(*quantise(said_nD, channels, bits=bits, what="tokens"), channels, bits=bits)
            assert torch.equal(found_BLnD[crop, layer], expected)
            scales_D = torch.from_numpy(channel_scales(channels))
            step_nD = (said_nD / scales_D).abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1) * scales_D
            assert bool(((found_BLnD[crop, layer] - said_nD).abs() <= 0.501 * step_nD).all())
    assert bool(encoding.unpack(encoding.pack(records, page=2), page=2, count=3).equal(records).all())
    features = Features(None, said_BLPD[1:2], words(3, encoding.positions)[1:2])
    alone = encoding.encode(NOTHING, NOTHING, None, features)
    assert bool(alone.equal(records.take(np.array([1]))).all())
    assert torch.equal(decoded_tokens(encoding, alone)[0][0], found_BLnD[1])


def test_equal_words_keep_the_first_positions() -> None:
    features = Features(None, values(1, 2, 11, 3), torch.tensor([[7] * 11]))
    records = TOKENS.encode(NOTHING, NOTHING, None, features)
    assert decoded_tokens(TOKENS, records)[1].tolist() == [[0, 1, 2, 3]]


def test_sums_over_kept_positions_are_unbiased() -> None:
    positions, crops = 49, 6000
    encoding = TokensEncoding(positions=positions, classes=2, channels=((0, 0, 0),), layers=(-1,), tokens=7, bits=(8,))
    said_PD = values(positions, 3) + torch.tensor([0.0, 1.0, 5.0])
    records = encoded(encoding, tokens=said_PD.expand(crops, 1, -1, -1))
    found_BLnD, _ = decoded_tokens(encoding, records)
    whole = dataclasses.replace(encoding, tokens=0)
    all_PD = decoded_tokens(whole, encoded(whole, tokens=said_PD[None, None]))[0][0, 0]
    sums_BD = found_BLnD[:, 0].double().sum(1) * positions / 7
    deviation_D = sums_BD.std(0)
    assert bool((deviation_D > 1).all())
    assert bool(((sums_BD.mean(0) - all_PD.double().sum(0)).abs() < 3.5 * deviation_D / crops**0.5).all())


def error_of(said_nD: Tensor, channels: tuple[int, ...], bits: int) -> Tensor:
    """Relative squared error of each channel."""
    decoded = dequantise(*quantise(said_nD, channels, bits=bits, what="features"), channels, bits=bits)
    return (decoded - said_nD).square().mean(0) / said_nD.square().mean(0)


@pytest.mark.parametrize("bits", [4, 8])
def test_measured_scales_keep_a_giant_channel_from_drowning_the_others(bits: int) -> None:
    said_nD = values(400, 64)
    said_nD[:, 5] = said_nD[:, 5].abs() * 100 + 100
    flat, measured = (0,) * 64, measure_channels(said_nD)
    others = [d for d in range(64) if d != 5]
    before, after = (error_of(said_nD, channels, bits)[others].mean() for channels in (flat, measured))
    # It counts as at most eight times as large as the mean channel.
    assert measured[5] == max(measured) and after < before / 20
    assert after < (0.3 if bits == 4 else 1e-3)


def test_scales_are_root_mean_squares_to_a_quarter_of_an_octave() -> None:
    said_nD = values(2000, 5) * torch.tensor([1.0, 2.0, 0.5, 3.0, 0.9])
    measured = measure_channels(said_nD)
    rms_D = said_nD.double().square().mean(0).sqrt()
    assert measured == tuple(round(4 * float(rms.log2())) for rms in rms_D)
    assert measured == measure_channels(said_nD.clone())
    assert measured == measure_channels(said_nD[torch.randperm(2000, generator=torch.Generator().manual_seed(1))])
    ratio = torch.from_numpy(channel_scales(measured)).double() / rms_D
    assert bool((ratio.log2().abs() <= 0.125 + 1e-6).all())


def test_channel_scales_are_powers_of_two_and_three_constants() -> None:
    found = channel_scales(tuple(range(-256, 257)))
    expected = 2.0 ** (np.arange(-256, 257) / 4)
    assert found.dtype == np.float32 and np.abs(found / expected - 1).max() < 1e-7
    assert [found[256 + k].tobytes().hex() for k in range(4)] == ["0000803f", "f037983f", "f304b53f", "fd44d73f"]


@pytest.mark.parametrize("dead", ["all", "some"])
def test_dead_channels_have_scales_too(dead: str) -> None:
    said_nD = values(50, 6)
    said_nD[:, :] = 0 if dead == "all" else said_nD
    said_nD[:, 2] = 0
    channels = measure_channels(said_nD)
    assert all(type(k) is int and -256 <= k <= 256 for k in channels)
    if dead == "some":  # an eighth of the mean channel's
        assert channels[2] == round(4 * float(said_nD.double().square().mean().sqrt().log2() - 3))
    encoding = PooledEncoding(positions=1, classes=2, channels=channels)
    assert bool((decoded_pooled(encoding, encoded(encoding, pooled=said_nD))[:, 2] == 0).all())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 3e38])
def test_what_half_precision_cannot_hold_is_refused_in_one_line(bad: float) -> None:
    pooled, tokens = values(3, 5), values(3, 2, 11, 3)
    pooled[1, 2] = bad
    tokens[1, 1, :, 2] = bad
    for encoding, said in ((POOLED, {"pooled": pooled}), (TOKENS, {"tokens": tokens})):
        with pytest.raises(
            DataError, match=r"the teacher gave (features|patch tokens) that cannot be stored"
        ) as caught:
            encoded(encoding, **said)
        assert "\n" not in str(caught.value)
    if not np.isfinite(bad):
        with pytest.raises(DataError, match="the teacher gave features that are not finite"):
            measure_channels(pooled)


def half(value: float) -> bytes:
    return np.float16(value).tobytes()


FOUR_BITS = dataclasses.replace(POOLED, bits=4)
MASK = "does not keep 4 positions"
NOT_WRITTEN = "holds what no encoder writes"
DAMAGE: list[tuple[Encoding, int, bytes, str]] = [
    (POOLED, 3, b"\xff", NOT_WRITTEN),
    *((POOLED, 0, half(value), NOT_WRITTEN) for value in (np.nan, np.inf, -1.0, -0.0)),
    (FOUR_BITS, 2, b"\x7f", NOT_WRITTEN),
    (FOUR_BITS, 2, b"\xf7", NOT_WRITTEN),
    (FOUR_BITS, 4, b"\x87", NOT_WRITTEN),  # the padding nibble
    (TOKENS, 0, b"\x0f\x01", MASK),
    (TOKENS, 0, b"\x07\x00", MASK),
    (TOKENS, 0, b"\x07\x08", MASK),  # bit 11 of positions 0 to 10
    (TOKENS, 0, b"\x00\x00", MASK),
    (TOKENS, 2, half(np.inf), NOT_WRITTEN),
    (TOKENS, 8, half(-1.0), NOT_WRITTEN),
    (TOKENS, 10, b"\x7f", NOT_WRITTEN),
    (TOKENS, 11, b"\x17", NOT_WRITTEN),
    (TOKENS, 18, half(np.nan), NOT_WRITTEN),
    (TOKENS, 26, b"\xff", NOT_WRITTEN),
    (TOKENS, 37, b"\xff", NOT_WRITTEN),
]


def packed(encoding: Encoding) -> StoredRows:
    return encoding.pack(encoded(encoding, pooled=values(3, 5), tokens=values(3, 2, 11, 3)), page=4)


@pytest.mark.parametrize(("encoding", "at", "content", "message"), DAMAGE)
def test_damaged_rows_are_refused_in_one_line(encoding: Encoding, at: int, content: bytes, message: str) -> None:
    stored = packed(encoding)
    encoding.unpack(stored, page=4, count=3)
    stored.rows[1, at : at + len(content)] = np.frombuffer(content, np.uint8)
    with pytest.raises(DataError, match=message) as caught:
        encoding.unpack(stored, page=4, count=3)
    assert "\n" not in str(caught.value) and encoding.name in str(caught.value)


@pytest.mark.parametrize("encoding", [POOLED, FOUR_BITS, TOKENS], ids=["pooled", "four bits", "tokens"])
def test_rows_of_another_form_are_refused_and_padding_is_not_read(encoding: Encoding) -> None:
    stored = packed(encoding)
    size = encoding.field.row_bytes
    assert stored.rows.shape == (3, size)
    for rows in (
        stored.rows[:2],
        stored.rows[:, 1:],
        stored.rows.astype(np.int16),
        stored.rows[:0],
        stored.rows[..., None],
    ):
        with pytest.raises(DataError, match=rf"rows of .*, expected at least 3 of \|u1 \({size},\)"):
            encoding.unpack(StoredRows(rows, stored.spill), page=4, count=3)
    padded = np.concatenate([stored.rows, np.full((1, size), 255, np.uint8)])
    assert len(encoding.unpack(StoredRows(padded, stored.spill), page=4, count=3)) == 3
    with pytest.raises(DataError):
        encoding.unpack(StoredRows(padded, stored.spill), page=4, count=4)


@pytest.mark.parametrize("encoding", [POOLED, FOUR_BITS, TOKENS], ids=["pooled", "four bits", "tokens"])
def test_random_bytes_are_refused_or_decode_to_finite_features(encoding: Encoding) -> None:
    row = packed(encoding).rows[:1]
    generator, refused = np.random.default_rng(0), 0
    for _ in range(300):
        changed = row.copy()
        changed[0, generator.integers(row.shape[1])] = generator.integers(256)
        try:
            records = encoding.unpack(StoredRows(changed, np.empty(0, np.uint8)), page=1, count=1)
        except DataError:
            refused += 1
            continue
        entries = encoding.tabulate(records, ratio_steps=0)
        targets = encoding.targets(entries, grid=(1, encoding.positions), ratio_steps=0, device=CPU)
        found = targets.pooled_BD if targets.tokens is None else targets.tokens.values_BLnD
        assert found is not None and bool(found.isfinite().all())
    assert refused > 10


POOLED_JSON: dict[str, Any] = {"positions": 6, "classes": 3, "channels": [0, 1, 2]}
TOKENS_JSON: dict[str, Any] = {"positions": 6, "classes": 3, "layers": [0, -1], "channels": [[0, 1], [2, 3]]} | {
    "tokens": 4,
    "bits": [4, 8],
}


def test_settings_of_a_store_are_read_back() -> None:
    found = encodings_from_json({"features.tokens": TOKENS_JSON, "features.pooled": POOLED_JSON})
    assert [*found] == ["features.pooled", "features.tokens"]
    assert found["features.pooled"] == PooledEncoding(positions=6, classes=3, channels=(0, 1, 2), bits=7)
    one = encodings_from_json({"features.tokens": {**TOKENS_JSON, "bits": 8}})["features.tokens"]
    assert isinstance(one, TokensEncoding) and one.bits == (8, 8)


BITS = [3, 9, 0, -4, 4.0, True, "4", None]
CHANNELS = [None, 3, "0,1", {}, [], [0.5], ["0"], [True], [None], [[0]], [257], [-257], [10**30], [0] * 65_537]


@pytest.mark.parametrize(
    "change",
    [
        *({"bits": bits} for bits in [*BITS, [4], [[4]]]),
        *({"channels": channels} for channels in CHANNELS),
        {"positions": 0},
        {"positions": "6"},
        {"classes": 0},
        {"tokens": 4},
    ],
    ids=lambda change: str(change)[:40],
)
def test_hostile_settings_of_pooled_features_are_refused_in_one_line(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        encodings_from_json({"features.pooled": {**POOLED_JSON, **change}})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


@pytest.mark.parametrize(
    "change",
    [
        *({"bits": bits} for bits in [*BITS, [4], [4, 8, 8], [4, 3], [], [4, "8"], [4, [8]], [4, True], {}]),
        *({"channels": [channels, [2, 3]]} for channels in CHANNELS),
        *({"channels": channels} for channels in (None, 3, "01", {}, [], [0, 1], [[0, 1]], [[0, 1]] * 3)),
        {"channels": [[0, 1], [2]]},
        *({"layers": layers} for layers in ([1, 0], [0, 0], [-1, 0], [-1, -1], [0, -2], [-3, -1], [0], [], [0, 1, 2])),
        *({"layers": layers} for layers in (0, None, "0,1", [0, 0.5], [0, "1"], [0, True], [[0], [1]], {})),
        *({"tokens": tokens} for tokens in (7, -1, 1.5, "4", True, None, [4])),
        {"positions": 0},
        {"classes": "3"},
        {"keep": 3},
    ],
    ids=lambda change: str(change)[:40],
)
def test_hostile_settings_of_tokens_are_refused_in_one_line(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        encodings_from_json({"features.tokens": {**TOKENS_JSON, **change}})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250
