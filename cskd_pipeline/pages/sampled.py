"""What a sample of the stored crops says: winners at several ratios, by position and by class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cskd_pipeline.errors import DataError
from cskd_pipeline.loading.order import order_key, permutation
from cskd_pipeline.ratio import RATIO_STEPS

if TYPE_CHECKING:
    from cskd_pipeline.crops.recipe import CropRecipe
    from cskd_pipeline.data import SampleIndex
    from cskd_pipeline.labels import Encoding, Records
    from cskd_pipeline.store import StoreReader

STEPS = tuple(round(RATIO_STEPS * tenths / 10) for tenths in range(11))
"""Ratios that are looked at, r = 0, 0.1, ..., 1, in steps of 1/65536."""

WINNERS = ("hard", "full", "soft")
"""Encodings that name winners; the first is exact, the last names the likeliest of those it keeps."""

PROBABILITIES = ("full", "soft")
"""Encodings that give probabilities."""

_CROPS = 2048
_BLOCKS = 8
_AT_ONCE = 128
"""Crops whose distributions are in memory together."""

Ints = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Sampled:
    """The winners of n crops, drawn at random from committed blocks.

    Attributes:
        encoding: which of the store's they are from.
        seed_n, sample_n: int64, the crops.
        winner_KnW: int64, at each of `STEPS` the class that wins globally, then at every position.
        label_n: int64, the true class (of a mixed crop, of its larger part); None without the data's index.
        grid: (H, W).
        unread: an error for each block that could not be read.
    """

    encoding: str
    seed_n: Ints
    sample_n: Ints
    winner_KnW: Ints
    label_n: Ints | None
    grid: tuple[int, int]
    unread: list[str]

    def __len__(self) -> int:
        return len(self.seed_n)

    @property
    def local_nP(self) -> Ints:
        """The winners of purely local labels, r = 1."""
        return self.winner_KnW[-1, :, 1:]

    @property
    def global_n(self) -> Ints:
        """The global winners."""
        return self.winner_KnW[-1, :, 0]

    def as_global_K(self) -> Shares:
        """The share of positions whose winner is the global one, at each of `STEPS`."""
        shares: Shares = (self.winner_KnW[:, :, 1:] == self.winner_KnW[:, :, :1]).mean((1, 2))
        return shares

    def true_K(self) -> Shares | None:
        """The share of positions whose winner is the true class, at each of `STEPS`."""
        if self.label_n is None:
            return None
        shares: Shares = (self.winner_KnW[:, :, 1:] == self.label_n[:, None]).mean((1, 2))
        return shares

    def as_global_HW(self) -> Shares:
        """The share of crops whose local winner is the global one, by position."""
        shares: Shares = (self.local_nP == self.global_n[:, None]).mean(0).reshape(self.grid)
        return shares

    def true_HW(self) -> Shares | None:
        """The share of crops whose local winner is the true class, by position."""
        if self.label_n is None:
            return None
        shares: Shares = (self.local_nP == self.label_n[:, None]).mean(0).reshape(self.grid)
        return shares

    def by_class(self, classes: int) -> ByClass | None:
        """Agreement by true class; None without true classes."""
        if self.label_n is None:
            return None
        label_n = self.label_n
        crops_C = np.bincount(label_n, minlength=classes)
        true_n, same_n = (self.local_nP == of[:, None] for of in (label_n, self.global_n))

        def mean_C(value_n: npt.NDArray[Any]) -> Shares:
            sums = np.bincount(label_n, weights=value_n, minlength=classes)
            means: Shares = np.divide(sums, crops_C, out=np.full(classes, np.nan), where=crops_C > 0)
            return means

        right_n = (self.global_n == label_n).astype(float)
        return ByClass(crops_C, mean_C(true_n.mean(1)), mean_C(same_n.mean(1)), mean_C(right_n))

    def confusion(self) -> Mapping[tuple[int, int], int]:
        """(true class, global winner) -> number of crops, for all pairs that occur; empty without true classes."""
        if self.label_n is None:
            return {}
        pairs_m2, count_m = np.unique(np.stack([self.label_n, self.global_n], 1), axis=0, return_counts=True)
        return {(int(true), int(said)): int(count) for (true, said), count in zip(pairs_m2, count_m, strict=True)}


@dataclasses.dataclass(frozen=True, slots=True)
class ByClass:
    """By true class; shares are NaN for classes without crops.

    Attributes:
        crops_C: int64, number of crops.
        true_C: share of local winners that are the true class.
        as_global_C: share of local winners that are the global one.
        global_C: share of global winners that are the true class.
    """

    crops_C: Ints
    true_C: Shares
    as_global_C: Shares
    global_C: Shares


def sample_labels(
    store: StoreReader, recipe: CropRecipe, index: SampleIndex | None, *, crops: int = _CROPS
) -> Sampled | None:
    """Winners of about `crops` crops from up to 8 blocks; None where the store holds no targets that name winners.

    Blocks and crops are drawn with a fixed key: the same store gives the same sample. A block that is damaged is left
    out.

    Raises:
        DataError: no block is committed, or none can be read.
        RetryError: storage is out of reach.
    """
    encoding = next((name for name in WINNERS if name in store.encodings), None)
    if encoding is None:
        return None
    units = [(seed, block) for seed, blocks in store.begun().items() for block in blocks]
    if not units:
        raise DataError(f"{store.path} holds no committed block; `cskd-pipeline precompute` makes them")
    drawn = [units[at] for at in permutation(order_key(0, 0), 0, len(units)).tolist()]
    wanted = min(_BLOCKS, len(drawn))
    seeds, samples, winners = list[Ints](), list[Ints](), list[Ints]()
    unread: list[str] = []
    for number, (seed, block) in enumerate(drawn):
        if len(seeds) == wanted or len(unread) == 2 * _BLOCKS:
            break
        rows = store.header.rows(block)
        try:
            records = store.read(seed, block, encoding)
        except DataError as error:
            unread.append(str(error))
            continue
        picked = np.sort(permutation(order_key(0, 1 + number), 0, len(rows))[: -(-crops // wanted)])
        seeds.append(np.full(len(picked), seed, np.int64))
        samples.append(rows.start + picked)
        winners.append(winners_of(store.encodings[encoding], records.take(picked), grid=store.header.grid))
    if not seeds:
        raise DataError(unread[0])
    seed_n, sample_n = np.concatenate(seeds), np.concatenate(samples)
    label_n = None if index is None else true_classes(recipe, index, seed_n, sample_n)
    return Sampled(encoding, seed_n, sample_n, np.concatenate(winners, 1), label_n, store.header.grid, unread)


def winners_of(encoding: Encoding, records: Records, *, grid: tuple[int, int], steps: tuple[int, ...] = STEPS) -> Ints:
    """int64 [K, n, 1 + P]: at each of K ratios, the class that wins globally, then at every position."""
    if encoding.name == "hard":
        return np.stack([encoding.tabulate(records, ratio_steps=step).astype(np.int64) for step in steps])
    found = [
        np.stack([_likeliest(encoding, records.take(rows), grid, step) for step in steps]) for rows in _parts(records)
    ]
    return np.concatenate(found, 1)


def probabilities_of(
    encoding: Encoding, records: Records, winner_KnW: Ints, *, grid: tuple[int, int], steps: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """fp32 [K, n, 1 + P]: the probabilities of these classes at each of K ratios, of an encoding in `PROBABILITIES`."""
    import torch

    parts = []
    for rows in _parts(records):
        at_steps = []
        for number, step in enumerate(steps):
            table = _distributions(encoding, records.take(rows), grid, step)
            winner_nW = torch.from_numpy(winner_KnW[number, rows])
            at_steps.append(table.probability(winner_nW).numpy())
        parts.append(np.stack(at_steps))
    return np.concatenate(parts, 1)


def true_classes(recipe: CropRecipe, index: SampleIndex, seed_n: Ints, sample_n: Ints) -> Ints:
    """int64 [n]: the true class of each crop, that of the larger part of a mixed one (the first of equal parts)."""
    from cskd_pipeline.crops.mixing import LAM_ONE

    label_n = np.empty(len(seed_n), np.int64)
    for seed in np.unique(seed_n).tolist():
        rows = np.flatnonzero(seed_n == seed)
        samples = sample_n[rows]
        draws = recipe.draw(
            seed, samples, heights=index.heights[samples], widths=index.widths[samples], total=len(index)
        )
        own = 2 * draws["lam"].astype(np.int64) >= LAM_ONE
        label_n[rows] = index.labels[np.where(own, samples, draws["partner"])]
    return label_n


def _parts(records: Records) -> list[Ints]:
    return [np.arange(start, min(start + _AT_ONCE, len(records))) for start in range(0, len(records), _AT_ONCE)]


def _likeliest(encoding: Encoding, records: Records, grid: tuple[int, int], step: int) -> Ints:
    winners: Ints = _distributions(encoding, records, grid, step).likeliest().numpy()
    return winners


def _distributions(encoding: Encoding, records: Records, grid: tuple[int, int], step: int) -> _Distributions:
    """The global distribution, then that of every position at r = step / 65536."""
    import torch

    from cskd_pipeline.losses.fusion import fuse
    from cskd_pipeline.losses.palette import global_on_palette, on_palette

    entries = encoding.tabulate(records, ratio_steps=step)
    targets = encoding.targets(entries, grid=grid, ratio_steps=step, device=torch.device("cpu"))
    if targets.sparse is None:
        global_BC, dense_BCHW = targets.logits_global_BC, targets.logits_dense_BCHW
        assert global_BC is not None and dense_BCHW is not None
        fused_BCP = fuse(dense_BCHW, global_BC, ratio_steps=step).flatten(2)
        return _Distributions(torch.cat([global_BC[:, :, None], fused_BCP], 2).log_softmax(1), None, None, None)
    sparse = targets.sparse
    whole, local = global_on_palette(sparse), on_palette(sparse, ratio_steps=step)
    log_BUW = torch.cat([whole.log_BUX, local.log_BUX], 2).masked_fill(~sparse.used_BU[:, :, None], -torch.inf)
    outside_BW = torch.cat([whole.outside_BX, local.outside_BX], 1)
    total_BW = torch.logaddexp(log_BUW.logsumexp(1), outside_BW + whole.outside_B[:, None].log())
    return _Distributions(log_BUW - total_BW[:, None], sparse.class_BU, sparse.used_BU, outside_BW - total_BW)


@dataclasses.dataclass(frozen=True, slots=True)
class _Distributions:
    """Log-probabilities of classes at 1 + P places: of all of them, or of those in a palette and of each other one."""

    log_BUW: Any
    class_BU: Any
    used_BU: Any
    outside_BW: Any

    def likeliest(self) -> Any:
        """int64 [B, 1 + P]."""
        slot_BW = self.log_BUW.argmax(1)
        return slot_BW if self.class_BU is None else self.class_BU.gather(1, slot_BW)

    def probability(self, class_BW: Any) -> Any:
        """fp32 [B, 1 + P]."""
        if self.class_BU is None:
            return self.log_BUW.gather(1, class_BW[:, None])[:, 0].exp()
        named_BUW = (self.class_BU[:, :, None] == class_BW[:, None]) & self.used_BU[:, :, None]
        kept_BW = (self.log_BUW.exp() * named_BUW).sum(1)
        return kept_BW.where(named_BUW.any(1), self.outside_BW.exp())
