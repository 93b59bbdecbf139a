"""Orders show every crop they promise, once, with mix partners side by side."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cskd_pipeline.crops.recipe import RECIPES
from cskd_pipeline.errors import UsageError
from cskd_pipeline.loading.order import EpochOrder, block_batches, order_key, permutation

DEIT = dataclasses.replace(RECIPES["deit"], group=8)
PLAIN = RECIPES["plain"]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    total=st.integers(40, 120),
    repeats=st.integers(1, 4),
    epoch=st.integers(0, 50),
    mixes=st.booleans(),
    key=st.integers(0, 9),
)
def test_an_epoch_shows_whole_pairs_of_the_right_seeds(
    total: int, repeats: int, epoch: int, mixes: bool, key: int
) -> None:
    recipe = DEIT if mixes else PLAIN
    order = EpochOrder(recipe, tuple(range(5)), total, batch=2, repeats=repeats, key=key)
    seeds, samples, partners = order.crops(epoch)
    shown = set(zip(seeds.tolist(), samples.tolist(), strict=True))
    assert len(shown) == len(seeds), "no crop twice"
    assert set(seeds.tolist()) == set(order.epoch_seeds(epoch))
    assert order.batches * order.batch <= len(seeds)
    by_seed = [{s for seed, s in shown if seed == wanted} for wanted in order.epoch_seeds(epoch)]
    assert all(chosen == by_seed[0] for chosen in by_seed), "every seed shows the same samples"
    if repeats == 1:
        assert by_seed[0] == set(range(total))
    else:
        assert len(by_seed[0]) <= -(-total // (recipe.group * repeats)) * recipe.group
    for row in range(order.batches * order.batch if mixes else 0):
        batch = slice(row - row % order.batch, row - row % order.batch + order.batch)
        partner = recipe.partners(int(seeds[row]), samples[row : row + 1], total=total)[0]
        assert partner == partners[row]
        assert (int(seeds[row]), int(partner)) in zip(seeds[batch].tolist(), samples[batch].tolist(), strict=True)


def test_partners_share_a_batch_of_any_even_size() -> None:
    for batch in (2, 6, 10, 34):
        order = EpochOrder(DEIT, (3, 4), 101, batch=batch, key=1)
        samples = order.crops(0).samples_B
        for start in range(0, order.batches * batch, batch):
            mine = samples[start : start + batch]
            assert set(DEIT.partners(3, mine, total=101).tolist()) == set(mine.tolist())


def test_orders_are_reproducible_and_differ_between_epochs_and_keys() -> None:
    order = EpochOrder(DEIT, (0, 1), 64, batch=8)
    again = EpochOrder(DEIT, (0, 1), 64, batch=8)
    other = EpochOrder(DEIT, (0, 1), 64, batch=8, key=1)
    assert all((a == b).all() for a, b in zip(order.crops(2), again.crops(2), strict=True))
    assert not (order.crops(2)[1] == order.crops(0)[1]).all()
    assert not (order.crops(2)[1] == other.crops(2)[1]).all()


def test_the_order_is_frozen() -> None:
    """A resumed run of a later release must go on with the same batches."""
    assert permutation(order_key(0, 0), 1, 10).tolist() == [0, 7, 5, 9, 2, 6, 4, 1, 3, 8]
    order = EpochOrder(DEIT, (0, 1, 2), 16, batch=4, repeats=2, key=7)
    seeds, samples, _ = order.crops(1)
    assert seeds.tolist() == [0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 0, 0, 2, 2, 2, 2]
    assert samples.tolist() == [1, 2, 4, 7, 3, 6, 0, 2, 1, 5, 0, 5, 4, 6, 3, 7]


def test_blocks_hold_each_of_their_samples_once_with_its_partner() -> None:
    for total, rows in ((100, range(32, 64)), (99, range(96, 99))):
        batches = list(block_batches(DEIT, 5, rows, total=total, batch=6))
        samples = np.concatenate([batch.samples_B for batch in batches])
        assert sorted(samples.tolist()) == list(rows)
        for _, mine, partners in batches:
            assert (DEIT.partners(5, mine, total=total) == partners).all() and set(partners) == set(mine)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"seeds": ()}, "no seed"),
        ({"repeats": 3}, "--repeats 3 .* 2 are available"),
        ({"batch": 7}, "must be even.*found 7"),
        ({"batch": 66}, "batch of 66 is larger than an epoch of 64 crops"),
    ],
)
def test_impossible_orders_are_refused(changes: dict[str, object], message: str) -> None:
    values: dict[str, object] = {"recipe": DEIT, "seeds": (0, 1), "total": 64, "batch": 8}
    with pytest.raises(UsageError, match=message):
        EpochOrder(**{**values, **changes})  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    total=st.integers(64, 300),
    repeats=st.integers(1, 4),
    batch=st.sampled_from([2, 6, 16, 32, 48]),
    mixes=st.booleans(),
    epoch=st.integers(0, 3),
)
@example(total=8 * 20 + 7, repeats=3, batch=16, mixes=True, epoch=0)  # a last group of as many units as a whole one
@example(total=8 * 20 + 7, repeats=3, batch=16, mixes=True, epoch=3)
def test_a_shuffle_by_blocks_shows_the_crops_of_a_full_one(
    total: int, repeats: int, batch: int, mixes: bool, epoch: int
) -> None:
    recipe = DEIT if mixes else dataclasses.replace(PLAIN, group=8)
    full = EpochOrder(recipe, tuple(range(5)), total, batch=batch, repeats=repeats, key=2)
    blocks = dataclasses.replace(full, shuffle="blocks")
    assert blocks.batches == full.batches
    found, expected = blocks.crops(epoch), full.crops(epoch)
    assert sorted(zip(*found, strict=True)) == sorted(zip(*expected, strict=True))
    for start in range(0, blocks.batches * batch, batch):
        crops = found.part(start, start + batch)
        mine = set(zip(crops.seeds_B, crops.samples_B, strict=True))
        assert all(pair in mine for pair in zip(crops.seeds_B, crops.partners_B, strict=True))


def test_a_shuffle_by_blocks_reads_few_groups_at_a_time() -> None:
    """Eight groups of 16 samples x 3 seeds are 384 crops, three batches."""
    recipe = dataclasses.replace(DEIT, group=16)
    order = EpochOrder(recipe, (0, 1, 2), 16 * 120, batch=128, repeats=3, shuffle="blocks")
    assert order.ahead == 4
    crops = order.crops(1)
    batches = [crops.part(start, start + 128).samples_B for start in range(0, order.batches * 128, 128)]
    lanes = np.stack(batches).reshape(len(batches), 8, 16) // 16
    assert all(len(set(lane)) <= 2 for batch in lanes for lane in batch), "a lane is in one group, or between two"
    begins = [len(set(after.flat) - set(before.flat)) for before, after in itertools.pairwise(lanes)]
    assert set(begins) <= {2, 3}, "the lanes begin new groups in turn"
    seen: dict[int, list[int]] = {}
    for number, batch in enumerate(batches):
        for sample in batch.tolist():
            seen.setdefault(sample, []).append(number)
    far = [sample for sample, at in seen.items() if max(at) - min(at) >= order.ahead]
    assert all(len(at) == 3 for at in seen.values())
    assert len({sample // 16 for sample in far}) <= 8, "but for one group a lane, which the epoch begins amid"


@pytest.mark.parametrize("batch", [64, 1000, 1002, 1006, 1024, 1200, 4096])
def test_crops_that_wait_do_not_grow_with_the_batch(batch: int) -> None:
    order = EpochOrder(RECIPES["deit"], (0, 1, 2), 100_000, batch=batch, repeats=3, shuffle="blocks")
    assert order.ahead * batch <= 8 * 256 * 3 + 2 * batch
    crops = order.crops(0)
    last: dict[int, int] = {}
    outside = 0
    for number, sample in enumerate(crops.samples_B[: order.batches * batch].tolist()):
        outside += last.get(sample, number) // batch + order.ahead <= number // batch
        last[sample] = number
    assert outside <= 8 * 256 * 2, "but for one group a lane, and what fills no lane"


def test_a_rank_of_eight_decodes_images_of_its_own() -> None:
    order = EpochOrder(RECIPES["deit"], (0, 1, 2), 100_000, batch=1024, repeats=3, shuffle="blocks")
    samples = order.crops(0).samples_B[: order.batches // 8 * 8 * 1024].reshape(-1, 8, 128)
    ranks: dict[int, set[int]] = {}
    for rank in range(8):
        for sample in samples[:, rank].reshape(-1).tolist():
            ranks.setdefault(sample, set()).add(rank)
    assert sum(len(found) > 1 for found in ranks.values()) < 0.01 * len(ranks)


def test_the_order_by_blocks_is_frozen() -> None:
    order = EpochOrder(DEIT, (0, 1, 2), 64, batch=8, repeats=2, key=7, shuffle="blocks")
    seeds, samples, _ = order.crops(1)
    assert seeds[:16].tolist() == [2, 2, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2]
    assert samples[:16].tolist() == [57, 62, 42, 44, 26, 29, 3, 6, 56, 60, 40, 44, 24, 29, 3, 7]
