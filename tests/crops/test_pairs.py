from __future__ import annotations

import dataclasses
from collections import defaultdict

import numpy as np
import pytest
from crop_cases import draw_same_size
from hypothesis import given, settings
from hypothesis import strategies as st

from cskd_pipeline.crops.labels import mixed_labels, partner_rows
from cskd_pipeline.crops.mixing import LAM_ONE, Mix
from cskd_pipeline.crops.philox import sample_words, stream_key
from cskd_pipeline.crops.recipe import RECIPES
from cskd_pipeline.errors import UsageError

DEIT = RECIPES["deit"]


def plain_partners(seed: int, *, total: int, group: int) -> list[int]:
    """The definition, one group at a time with Python's sort."""
    key = stream_key(version=1, key=0, seed=seed)
    high, low, _, _ = (words.tolist() for words in sample_words(key, np.arange(total), 5))
    partners = list(range(total))
    for start in range(0, total, group):
        members = sorted(range(start, min(start + group, total)), key=lambda i: ((high[i] << 32 | low[i]) >> 1, i))
        for a, b in zip(members[::2], members[1::2], strict=False):
            partners[a], partners[b] = b, a
    return partners


@settings(max_examples=60, deadline=None)
@given(total=st.integers(1, 700), half=st.integers(1, 150), seed=st.integers(0, 2**40))
def test_pairs_are_mutual_inside_their_group_and_all_but_an_odd_one(total: int, half: int, seed: int) -> None:
    group = 2 * half
    recipe = dataclasses.replace(DEIT, group=group)
    samples = np.arange(total)
    partners = recipe.partners(seed, samples, total=total)
    assert np.array_equal(partners[partners], samples)
    assert np.array_equal(partners // group, samples // group)
    assert (partners == samples).sum() == (total % group) % 2
    assert partners.tolist() == plain_partners(seed, total=total, group=group)


@settings(max_examples=25, deadline=None)
@given(total=st.integers(1, 2000), seed=st.integers(0, 1000), data=st.data())
def test_partners_of_some_samples_are_those_of_all(total: int, seed: int, data: st.DataObject) -> None:
    some = np.array(data.draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=20)))
    whole = DEIT.partners(seed, np.arange(total), total=total)
    assert np.array_equal(DEIT.partners(seed, some, total=total), whole[some])
    assert np.array_equal(draw_same_size(DEIT, seed, some, total=total)["partner"], whole[some])


def test_both_members_share_kind_lambda_and_box() -> None:
    draws = draw_same_size(DEIT, 2, range(1001), total=1001)
    other = draws[draws["partner"]]
    for field in ("mix", "lam", "cut_top", "cut_left", "cut_bottom", "cut_right"):
        assert np.array_equal(draws[field], other[field])
    alone = draws["partner"] == draws["sample"]
    assert alone.sum() == 1
    assert np.array_equal(alone, draws["mix"] == Mix.NONE)
    assert np.array_equal(alone, (draws["lam"] == LAM_ONE) & alone)


def test_every_partner_in_a_group_is_equally_likely() -> None:
    recipe = dataclasses.replace(DEIT, group=6)
    table = np.zeros((6, 6))
    for seed in range(4000):
        for i, j in enumerate(recipe.partners(seed, range(6), total=6)):
            table[i, j] += 1
    off_diagonal = table[~np.eye(6, dtype=bool)]
    assert np.trace(table) == 0
    assert abs(off_diagonal - 800).max() < 4 * np.sqrt(4000 * 0.2 * 0.8)


def test_lambda_of_cutmix_is_the_share_of_pixels_kept() -> None:
    draws = draw_same_size(DEIT, 5, range(2000))
    cut = draws[draws["mix"] == Mix.CUTMIX]
    area = (cut["cut_bottom"].astype(int) - cut["cut_top"]) * (cut["cut_right"].astype(int) - cut["cut_left"])
    assert np.abs(cut["lam"] - (1 - area / 224**2) * LAM_ONE).max() <= 0.5


def test_partner_rows_find_partners_in_a_batch_of_several_seeds() -> None:
    batch = np.concatenate([draw_same_size(DEIT, seed, range(256), total=256) for seed in (0, 1)])
    batch = batch[np.random.default_rng(0).permutation(len(batch))]
    rows = partner_rows(batch)
    assert np.array_equal(batch["sample"][rows], batch["partner"])
    assert np.array_equal(batch["seed"][rows], batch["seed"])
    with pytest.raises(UsageError, match=r"the batch lacks sample .*keep partners together"):
        partner_rows(batch[1:])
    batch["seed"][0] = 9
    with pytest.raises(UsageError, match="of seed 9, a mix partner"):
        partner_rows(batch)


def test_mixed_labels_carry_the_lambda_of_the_pixels() -> None:
    draws = draw_same_size(DEIT, 0, range(9), total=9)
    labels = np.arange(100, 109)
    rows = partner_rows(draws)
    mixed = mixed_labels(labels, rows, draws, DEIT, "cpu")
    assert mixed.first_B.tolist() == labels.tolist()
    assert mixed.second_B.tolist() == [100 + i for i in draws["partner"].tolist()]
    assert mixed.weight_B.tolist() == [lam / 65536 for lam in draws["lam"].tolist()]
    assert mixed.smoothing == 0.1
    sums = defaultdict(float)
    for row, total in enumerate(mixed.probabilities_BC(200).sum(1).tolist()):
        sums[row] = total
    assert all(abs(total - 1) < 1e-5 for total in sums.values())
