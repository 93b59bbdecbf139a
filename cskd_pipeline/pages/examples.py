"""Some crops as the student sees them, with their dense labels."""

from __future__ import annotations

import base64
import dataclasses
import functools
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cskd_pipeline.loading.order import order_key, permutation, sample_batches
from cskd_pipeline.pages.sampled import PROBABILITIES, WINNERS, Sampled, probabilities_of, winners_of
from cskd_pipeline.ratio import RATIO_STEPS

if TYPE_CHECKING:
    from cskd_pipeline.crops.recipe import CropRecipe
    from cskd_pipeline.data import SampleIndex
    from cskd_pipeline.labels import Records
    from cskd_pipeline.store import StoreReader

STEPS = (RATIO_STEPS, RATIO_STEPS // 2, 0)
"""The ratios that are shown: local labels, half and half, the global one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """A crop, finished as for training but not normalised, and its labels.

    Attributes:
        key: of the sample.
        seed, sample: the crop.
        picture: a JPEG.
        side: of the picture, in pixels.
        label, partner: the true class, and that of the mix partner; the same where nothing was mixed.
        weight: share of the first.
        winner_KW: int64, at each of `STEPS` the class that wins globally, then at every position.
        probability_KW: fp32, their probabilities; None where the store holds none.
        as_stored: whether the pixels have the stored checksum.
    """

    key: str
    seed: int
    sample: int
    picture: bytes
    side: int
    label: int
    partner: int
    weight: float
    winner_KW: npt.NDArray[np.int64]
    probability_KW: npt.NDArray[np.float32] | None
    as_stored: bool

    @property
    def address(self) -> str:
        """The picture as a data: URI."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.picture).decode()}"


def read_examples(
    store: StoreReader, recipe: CropRecipe, index: SampleIndex, sampled: Sampled, *, crops: int
) -> list[Example]:
    """Up to `crops` of the sampled crops, of as many classes as there are.

    Raises:
        DataError: an image cannot be read.
        RetryError: object storage refuses or is out of reach.
    """
    rows = _chosen(sampled, crops)
    examples: dict[int, Example] = {}
    for seed in np.unique(sampled.seed_n[rows]).tolist():
        of_seed = [row for row in rows if sampled.seed_n[row] == seed]
        found = _of_seed(store, recipe, index, seed, sampled.sample_n[of_seed])
        examples |= dict(zip(of_seed, found, strict=True))
    return [examples[row] for row in rows]


def _chosen(sampled: Sampled, crops: int) -> list[int]:
    """Rows of the sample: one of each class first, then whatever comes."""
    of_n = sampled.global_n if sampled.label_n is None else sampled.label_n
    drawn = permutation(order_key(0, 0), 0, len(sampled)).tolist()
    first = {int(of_n[row]): row for row in reversed(drawn)}
    return list(dict.fromkeys([*sorted(first.values(), key=drawn.index), *drawn]))[:crops]


def _of_seed(
    store: StoreReader, recipe: CropRecipe, index: SampleIndex, seed: int, samples_n: npt.NDArray[np.int64]
) -> list[Example]:
    import torch

    from cskd_pipeline.loading import CropLoader

    total, read = store.header.samples, functools.cache(functools.partial(store.read, seed))
    both = np.unique(np.concatenate([samples_n, recipe.partners(seed, samples_n, total=total)]))
    with CropLoader(index, recipe, workers=0) as loader:
        batch = next(loader.load(sample_batches(recipe, seed, both, total=total, batch=2 * len(both))))
        cpu = torch.device("cpu")
        shown_B3SS = batch.pixels(recipe, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), device=cpu)
        labels, crc_B = batch.labels(recipe, device=cpu), batch.checksums()
        row_of = {int(sample): row for row, sample in enumerate(batch.draws_B["sample"])}
        examples = []
        for sample in samples_n.tolist():
            row = row_of[sample]
            winner_KW, probability_KW, stored_crc = _labels(store, read, seed, sample)
            examples.append(
                Example(
                    key=bytes(index.keys[sample]).decode(errors="replace"),
                    seed=seed,
                    sample=sample,
                    picture=_jpeg(shown_B3SS[row].permute(1, 2, 0).numpy()),
                    side=recipe.size,
                    label=int(labels.first_B[row]),
                    partner=int(labels.second_B[row]),
                    weight=float(labels.weight_B[row]),
                    winner_KW=winner_KW,
                    probability_KW=probability_KW,
                    as_stored=int(crc_B[row]) == stored_crc,
                )
            )
    return examples


def _labels(
    store: StoreReader, read: Callable[[int, str], Records], seed: int, sample: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32] | None, int]:
    """Winners, their probabilities and the checksum of one crop; `read` gives the records of (block, encoding)."""
    block, grid = sample // store.header.block, store.header.grid
    at_1 = np.array([sample - store.header.rows(block).start])
    naming = next(name for name in WINNERS if name in store.encodings)
    winner_K1W = winners_of(store.encodings[naming], read(block, naming).take(at_1), grid=grid, steps=STEPS)
    probability_KW = None
    if (known := next((name for name in PROBABILITIES if name in store.encodings), None)) is not None:
        records, encoding = read(block, known).take(at_1), store.encodings[known]
        probability_KW = probabilities_of(encoding, records, winner_K1W, grid=grid, steps=STEPS)[:, 0]
    return winner_K1W[:, 0], probability_KW, int(store.read_crop_crc(seed, block)[at_1[0]])


def _jpeg(pixels_SS3: npt.NDArray[Any]) -> bytes:
    """Pixels in 0..1 as a JPEG; noise beyond is cut off."""
    from PIL import Image

    written = io.BytesIO()
    image = Image.fromarray((pixels_SS3.clip(0, 1) * 255).round().astype(np.uint8))
    image.save(written, "JPEG", quality=88)
    return written.getvalue()
