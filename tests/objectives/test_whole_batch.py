"""A term that belongs to the batch is that of the whole batch, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import warm
import whole_batch_rank
from toys import STUDENT_ARGS

import cskd_pipeline as cskd
from cskd_pipeline.errors import UsageError


def test_two_ranks_have_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    for started in warm.start_ranks(whole_batch_rank.main, [str(tmp_path)], ranks=2):
        started.wait(60)
        assert started.poll() == 0, started.err.read_text()
    expected = whole_batch_rank.gradient(0, 1)
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected, atol=1e-6, rtol=1e-5)
    halves = torch.stack([whole_batch_rank.gradient(rank, 2) for rank in range(2)])
    assert (halves.mean(0) - expected).abs().max() > 1e-3  # parts by themselves give another


def test_a_batch_in_parts_is_refused(toy_store: Path, toy: Path) -> None:
    labels, objective = cskd.open(toy_store, data=toy), cskd.objective("dist")
    student = labels.student("deit_ti", objective, args=STUDENT_ARGS)
    with pytest.raises(UsageError, match="belongs to the whole batch, which --accumulation 2 splits; give"):
        labels.loader(objective, student, batch_size=16, epochs=1, workers=0, accumulation=2)
