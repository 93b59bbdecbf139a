"""What every encoding promises, over the table of encodings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google_crc32c import value as crc32c

from cskd_pipeline.batch import Features
from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.labels import (
    ENCODINGS,
    Encoding,
    FullEncoding,
    HardEncoding,
    PooledEncoding,
    SoftEncoding,
    StoredRows,
    TokensEncoding,
    TruthEncoding,
    encoding_from_json,
    encodings_from_json,
    encodings_to_json,
)
from cskd_pipeline.ratio import fused

GRID, POSITIONS, CLASSES = (2, 3), 6, 11
LAYERS, WIDTH = 2, 7
CHANNELS = (0, -4, 3, 1, 8, -1, 2)
EXAMPLES: list[Encoding] = [
    HardEncoding(positions=POSITIONS, classes=CLASSES),
    HardEncoding(positions=POSITIONS, classes=CLASSES, row_bytes=24),
    SoftEncoding(positions=POSITIONS, classes=CLASSES),
    SoftEncoding(positions=POSITIONS, classes=CLASSES, k=3, global_k=4, bits=4),
    FullEncoding(positions=POSITIONS, classes=CLASSES, dtype="float16"),
    FullEncoding(positions=POSITIONS, classes=CLASSES, dtype="float32"),
    TruthEncoding(positions=POSITIONS, classes=CLASSES),
    PooledEncoding(positions=POSITIONS, classes=CLASSES, channels=CHANNELS),
    PooledEncoding(positions=POSITIONS, classes=CLASSES, channels=CHANNELS, bits=8),
    PooledEncoding(positions=POSITIONS, classes=CLASSES, channels=CHANNELS, bits=4),
    TokensEncoding(
        positions=POSITIONS, classes=CLASSES, channels=(CHANNELS,) * 2, layers=(0, 3), tokens=4, bits=(4, 8)
    ),
    TokensEncoding(
        positions=POSITIONS, classes=CLASSES, channels=(CHANNELS,) * 2, layers=(0, 3), tokens=0, bits=(8, 8)
    ),
]


Said = tuple[torch.Tensor, torch.Tensor, torch.Tensor, Features]


def example() -> Said:
    """Logits and features of small integers, on which every operation is exact on any machine, and true classes."""
    counter = torch.arange(16 * POSITIONS * CLASSES)
    dense_BPC = ((counter * 7919 + counter // 11 * 104729) % 257).float().reshape(16, POSITIONS, CLASSES) / 16
    global_BC = ((torch.arange(16 * CLASSES) * 6151) % 127).float().reshape(16, CLASSES) / 8
    value = torch.arange(16 * LAYERS * POSITIONS * WIDTH)
    tokens_BLPD = ((value * 3571 % 509 - 254).float() / 32).reshape(16, LAYERS, POSITIONS, WIDTH)
    words_BP = torch.arange(16 * POSITIONS).reshape(16, POSITIONS) * 48271 % 65537
    features = Features(tokens_BLPD[:, 0, 0].contiguous(), tokens_BLPD, words_BP)
    return dense_BPC, global_BC, torch.arange(32).reshape(16, 2) * 5 % CLASSES, features


def rows(said: Said, order: Any) -> Said:
    """What is said of these crops."""
    dense, global_, truth, features = said
    return dense[order], global_[order], truth[order], Features(*(part[order] for part in features if part is not None))


def label(encoding: Encoding) -> str:
    return "-".join(str(value).replace(" ", "") for value in encoding.to_json().values())


def pack(encoding: Encoding) -> StoredRows:
    return encoding.pack(encoding.encode(*example()), page=4)


def half_a_step(bits: int) -> float:
    """The largest error that rounding to codes can cause in these features, of at most 8 in magnitude."""
    levels, scales = 2 ** (bits - 1) - 1, [2 ** (k / 4) for k in CHANNELS]
    return 0.51 * 8 / levels * max(scales) / min(scales)


def test_every_encoding_has_an_example() -> None:
    assert {example.name for example in EXAMPLES} == set(ENCODINGS)


@pytest.mark.parametrize("encoding", EXAMPLES, ids=label)
def test_settings_round_trip_through_json(encoding: Encoding) -> None:
    assert encoding_from_json(encoding.to_json()) == encoding
    assert encodings_from_json(encodings_to_json({encoding.name: encoding})) == {encoding.name: encoding}


@pytest.mark.parametrize("encoding", EXAMPLES, ids=label)
def test_stored_rows_have_the_declared_shape_and_do_not_depend_on_the_batch(encoding: Encoding) -> None:
    said = example()
    records = encoding.encode(*said)
    whole = encoding.pack(records, page=4)
    assert whole.rows.shape == (16, *encoding.field.row_shape)
    assert whole.rows.dtype == np.dtype(encoding.field.dtype)
    parts = [encoding.encode(*rows(said, slice(i, i + 5))) for i in range(0, 16, 5)]
    joined = encoding.pack(type(records).joined(parts), page=4)
    assert joined.rows.tobytes() == whole.rows.tobytes()
    assert joined.spill.tobytes() == whole.spill.tobytes()


@pytest.mark.parametrize("encoding", EXAMPLES, ids=label)
def test_what_is_unpacked_packs_to_the_same_bytes(encoding: Encoding) -> None:
    records = encoding.encode(*example()).take(np.arange(14))
    stored = encoding.pack(records, page=4)
    again = encoding.unpack(stored, page=4, count=14)
    assert len(again) == 14
    assert again.equal(records).all()
    repacked = encoding.pack(again, page=4)
    assert repacked.rows.tobytes() == stored.rows.tobytes()
    assert repacked.spill.tobytes() == stored.spill.tobytes()


@pytest.mark.parametrize("encoding", EXAMPLES, ids=label)
def test_records_can_be_reordered_and_compared(encoding: Encoding) -> None:
    said = example()
    records = encoding.encode(*said)
    order = np.array([3, 3, 0, 15, 7])
    chosen = records.take(order)
    assert chosen.equal(encoding.encode(*rows(said, order))).all()
    assert not records.equal(records.take(np.arange(16)[::-1].copy())).all()


@pytest.mark.parametrize("encoding", EXAMPLES, ids=label)
def test_a_table_has_the_declared_entries(encoding: Encoding) -> None:
    records = encoding.encode(*example())
    table = encoding.tabulate(records, ratio_steps=20_000)
    assert table.shape == (16, *encoding.table.row_shape)
    assert table.dtype == np.dtype(encoding.table.dtype)
    same = np.array_equal(table, encoding.tabulate(records, ratio_steps=60_000))
    assert same == (not encoding.follows_ratio)


@pytest.mark.parametrize("encoding", EXAMPLES, ids=label)
def test_targets_are_those_of_the_logits(encoding: Encoding) -> None:
    dense, global_, truth, features = example()
    records = encoding.encode(dense, global_, truth, features)
    for k in (0, 1, 30_001, 65_536):
        entries = encoding.tabulate(records, ratio_steps=k)
        targets = encoding.targets(entries, grid=GRID, ratio_steps=k, device=torch.device("cpu"))
        assert targets.ratio_steps == k
        if encoding.gives == {"hard"}:
            assert targets.hard_dense_BHW is not None
            assert targets.hard_dense_BHW.shape == (16, *GRID)
            expected = fused(dense, global_[:, None], k).argmax(-1)
            assert torch.equal(targets.hard_dense_BHW.flatten(1), expected)
        elif "hard" in encoding.gives:
            assert targets.logits_dense_BCHW is not None and targets.logits_global_BC is not None
            decoded = targets.logits_dense_BCHW.flatten(2).transpose(1, 2)
            assert torch.equal(decoded, dense)  # these logits are exact in fp16 too
            assert torch.equal(targets.logits_global_BC, global_)
        elif "truth" in encoding.gives:
            assert targets.label_odds_B2 is not None
            p_B2 = global_.double().softmax(1).gather(1, truth)
            assert (targets.label_odds_B2.double().sigmoid() - p_B2).abs().max() < 1.3e-4
            torch.testing.assert_close(targets.label_odds_B2.double(), p_B2.logit(), atol=4e-3, rtol=1e-3)
        elif isinstance(encoding, PooledEncoding):
            assert targets.pooled_BD is not None and features.pooled_BD is not None
            assert (targets.pooled_BD - features.pooled_BD).abs().max() < half_a_step(encoding.bits)
        elif isinstance(encoding, TokensEncoding):
            assert targets.tokens is not None and features.tokens_BLPD is not None and features.words_BP is not None
            values_BLnD, kept_Bn, positions = targets.tokens
            least = features.words_BP.sort(1).values[:, : encoding.kept]
            assert torch.equal(features.words_BP.gather(1, kept_Bn).sort(1).values, least)
            assert positions == POSITIONS and torch.equal(kept_Bn, kept_Bn.sort(1).values)
            for layer, bits in enumerate(encoding.bits):
                truth_BnD = features.tokens_BLPD[torch.arange(16)[:, None], layer, kept_Bn]
                assert (values_BLnD[:, layer] - truth_BnD).abs().max() < half_a_step(bits)
        else:
            assert targets.sparse is not None
            named = targets.sparse.class_BU.gather(1, targets.sparse.slot_BkP[:, 0].long())
            assert torch.equal(named, dense.argmax(-1))


@pytest.mark.parametrize("encoding", EXAMPLES, ids=label)
def test_what_is_not_finite_is_refused(encoding: Encoding) -> None:
    dense, global_, truth, features = example()
    assert features.pooled_BD is not None and features.tokens_BLPD is not None
    global_[3, 2] = features.pooled_BD[3, 2] = features.tokens_BLPD[3, 1] = torch.inf
    with pytest.raises(DataError, match="the teacher gave"):
        encoding.encode(dense, global_, truth, features)


@pytest.mark.parametrize("encoding", EXAMPLES, ids=label)
def test_bytes_are_frozen(encoding: Encoding) -> None:
    stored = pack(encoding)
    golden = dict(line.split() for line in (Path(__file__).parent / "golden_rows.txt").read_text().splitlines())
    assert f"{crc32c(stored.rows.tobytes() + stored.spill.tobytes()):08x}" == golden[label(encoding)]


def test_fp16_refuses_what_it_cannot_hold() -> None:
    dense, global_, _, _ = example()
    with pytest.raises(DataError, match="float16 cannot hold"):
        FullEncoding(positions=POSITIONS, classes=CLASSES).encode(dense * 1e4, global_)


def test_unknown_encoding_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'hard'"):
        encoding_from_json({"name": "harder"})
