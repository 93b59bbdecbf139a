"""What every encoding promises, over the table of encodings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from google_crc32c import value as crc32c

from cskd_pipeline.encodings import ENCODINGS, Encoding, FullEncoding, HardEncoding, encoding_from_json
from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.records.ratio import fused

GRID, POSITIONS, CLASSES = (2, 3), 6, 11
EXAMPLES: list[Encoding] = [
    HardEncoding(positions=POSITIONS, classes=CLASSES),
    HardEncoding(positions=POSITIONS, classes=CLASSES, palette=5, changes=2),
    FullEncoding(positions=POSITIONS, classes=CLASSES, dtype="float16"),
    FullEncoding(positions=POSITIONS, classes=CLASSES, dtype="float32"),
]


def example_logits() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits made of small integers: every operation on them is exact on any machine."""
    counter = torch.arange(16 * POSITIONS * CLASSES)
    dense_BPC = ((counter * 7919 + counter // 11 * 104729) % 257).float().reshape(16, POSITIONS, CLASSES) / 16
    global_BC = ((torch.arange(16 * CLASSES) * 6151) % 127).float().reshape(16, CLASSES) / 8
    return dense_BPC, global_BC


def label(encoding: Encoding) -> str:
    settings = encoding.to_json()
    return f"{encoding.name}-{settings.get('dtype') or settings['changes']}"


def test_every_encoding_has_an_example() -> None:
    assert {example.name for example in EXAMPLES} == set(ENCODINGS)


@pytest.mark.parametrize("encoding", EXAMPLES, ids=label)
def test_settings_round_trip_through_json(encoding: Encoding) -> None:
    assert encoding_from_json(encoding.to_json()) == encoding


@pytest.mark.parametrize("encoding", EXAMPLES, ids=label)
def test_rows_have_the_declared_shape_and_do_not_depend_on_the_batch(encoding: Encoding) -> None:
    dense, global_ = example_logits()
    whole = encoding.encode(dense, global_)
    assert whole.rows.shape == (16, *encoding.field.row_shape)
    assert whole.rows.dtype == np.dtype(encoding.field.dtype)
    joined = encoding.join([encoding.encode(dense[i : i + 5], global_[i : i + 5]) for i in range(0, 16, 5)])
    assert joined.rows.tobytes() == whole.rows.tobytes()
    assert joined.spill.tobytes() == whole.spill.tobytes()


@pytest.mark.parametrize("encoding", EXAMPLES, ids=label)
def test_hard_targets_equal_the_fused_argmax(encoding: Encoding) -> None:
    dense, global_ = example_logits()
    encoded = encoding.encode(dense, global_)
    for k in (0, 1, 30_001, 65_536):
        targets = encoding.decode(encoded, grid=GRID, ratio_steps=k)
        assert targets.ratio_steps == k
        if targets.hard_dense_BHW is None:
            assert targets.logits_dense_BCHW is not None and targets.logits_global_BC is not None
            decoded = targets.logits_dense_BCHW.flatten(2).transpose(1, 2)
            assert torch.equal(decoded, dense)  # these logits are exact in fp16 too
            assert torch.equal(targets.logits_global_BC, global_)
        else:
            assert targets.hard_dense_BHW.shape == (16, *GRID)
            expected = fused(dense, global_[:, None], k).argmax(-1)
            assert torch.equal(targets.hard_dense_BHW.flatten(1), expected)


@pytest.mark.parametrize("encoding", EXAMPLES, ids=label)
def test_logits_that_are_not_finite_are_refused(encoding: Encoding) -> None:
    dense, global_ = example_logits()
    global_[3, 2] = torch.inf
    with pytest.raises(DataError, match="logits"):
        encoding.encode(dense, global_)


@pytest.mark.parametrize("encoding", EXAMPLES, ids=label)
def test_bytes_are_frozen(encoding: Encoding) -> None:
    encoded = encoding.encode(*example_logits())
    golden = dict(line.split() for line in (Path(__file__).parent / "golden_rows.txt").read_text().splitlines())
    assert f"{crc32c(encoded.rows.tobytes() + encoded.spill.tobytes()):08x}" == golden[label(encoding)]


def test_fp16_refuses_what_it_cannot_hold() -> None:
    dense, global_ = example_logits()
    with pytest.raises(DataError, match="float16 cannot hold"):
        FullEncoding(positions=POSITIONS, classes=CLASSES).encode(dense * 1e4, global_)


def test_unknown_encoding_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'hard'"):
        encoding_from_json({"name": "harder"})
