"""Pieces cover every crop of every batch once, and put the crops of an image together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cskd_pipeline.loading.pieces import Piece, pieces


def made_up(batches: int, batch: int, images: int) -> list[Any]:
    generator = np.random.default_rng(batches)
    return [generator.integers(0, images, batch) for _ in range(batches)]


def put_together(found: list[Piece], batches: list[Any]) -> None:
    """Every crop is where it belongs, exactly once."""
    filled = [np.full(len(batch), -1) for batch in batches]
    for piece in found:
        for sample, number, row in zip(*piece, strict=True):
            assert filled[number][row] == -1
            filled[number][row] = sample
    assert all(np.array_equal(batch, copy) for batch, copy in zip(batches, filled, strict=True))


@pytest.mark.parametrize("ahead", [1, 3, 20])
@pytest.mark.parametrize("crops", [1, 5, 8, 64])
@pytest.mark.parametrize("batch", [1, 7, 16])
def test_pieces_cover_the_batches(batch: int, crops: int, ahead: int) -> None:
    batches = made_up(9, batch, 20)
    found = list(pieces(iter(batches), crops=crops, ahead=ahead))
    put_together(found, batches)
    assert max(len(piece.samples_n) for piece in found) <= crops


def test_a_batch_is_whole_before_the_next_one_is_begun_for_its_own_sake() -> None:
    batches = made_up(9, 16, 40)
    done = [0] * 9
    complete = 0
    for piece in pieces(batches, crops=5, ahead=4):
        assert piece.batch_n.min() >= complete and piece.batch_n.max() < complete + 4
        assert complete in piece.batch_n
        for number in piece.batch_n:
            done[number] += 1
        while complete < 9 and done[complete] == 16:
            complete += 1


def test_crops_of_an_image_are_made_together_as_far_ahead_as_asked() -> None:
    batches = [np.arange(4)] * 6
    for ahead, times in ((1, 6), (3, 2), (6, 1)):
        found = list(pieces(batches, crops=12 if ahead == 3 else 64, ahead=ahead))
        begins = sum(int((np.diff(piece.samples_n, prepend=-1) != 0).sum()) for piece in found)
        assert begins == 4 * times


def test_batches_are_taken_no_further_ahead_than_needed() -> None:
    taken = []

    def batches() -> Any:
        for number in range(10):
            taken.append(number)
            yield np.arange(4)

    next(pieces(batches(), crops=4, ahead=3))
    assert taken == [0, 1, 2]


def test_nothing_gives_nothing() -> None:
    assert list(pieces([], crops=4)) == []
