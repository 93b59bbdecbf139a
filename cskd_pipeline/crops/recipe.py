"""The rule that turns (seed, sample) into a crop. The store holds it, and training takes it from there.

The settings are those of DeiT (Touvron et al., arXiv 2012.12877), kept by CSKD (Zhao et al., arXiv 2307.08500).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cskd_pipeline.crops.draws import Draws, draw_crops
from cskd_pipeline.crops.mixing import draw_partners
from cskd_pipeline.crops.philox import stream_key
from cskd_pipeline.crops.quantiles import BETA_ALPHAS
from cskd_pipeline.crops.rand_augment import RandAugment
from cskd_pipeline.errors import UsageError
from cskd_pipeline.record import Record

VERSION = 1
MAX_SIZE = 4096
MAX_RATIO = 16.0
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True, slots=True)
class CropRecipe(Record):
    """Which augmentations, how strong, on which stream of random numbers.

    Recipes with equal `key` and `version` share their random words: one without mixing takes the same regions and
    flips as one with it. docs/recipe.md is normative.

    Attributes:
        name: for people; it has no effect on crops.
        version: of the rule; a version's draws never change.
        key: names an independent stream of random numbers.
        size: the crop's side in pixels.
        scale: smallest and largest area of the region, as a share of the source image's.
        ratio: smallest and largest width / height of the region.
        flip: probability of a horizontal flip.
        rand_augment: timm's notation, such as "rand-m9-mstd0.5-inc1"; None for no operations.
        erase: probability of random erasing with per-pixel noise.
        mixup: alpha of mixup, 0 for none.
        cutmix: alpha of CutMix, 0 for none.
        mix_switch: probability of CutMix where both are on. If either is on, every pair is mixed.
        label_smoothing: epsilon of the true labels.
        group: mix partners come from the same group of this many consecutive samples of the canonical order.
        mean: of the data set, per channel in 0..1: colour of pixels that geometric operations uncover, centre of
            erasing noise.
        std: of the data set, per channel in 0..1: spread of erasing noise.

    Raises:
        UsageError: a field is out of bounds, or the version is unknown.
    """

    name: str
    version: int = VERSION
    key: int = 0
    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    rand_augment: str | None = "rand-m9-mstd0.5-inc1"
    erase: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    mix_switch: float = 0.5
    label_smoothing: float = 0.1
    group: int = 256
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        _check_version(self.version)
        for name in ("flip", "erase", "mixup", "cutmix", "mix_switch", "label_smoothing"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        for name, count in (("scale", 2), ("ratio", 2), ("mean", 3), ("std", 3)):
            object.__setattr__(self, name, _numbers(name, getattr(self, name), count))
        _demand(isinstance(self.name, str), "name", "be text", self.name)
        _whole("key", self.key, low=0, high=2**63 - 1)
        _whole("size", self.size, low=1, high=MAX_SIZE)
        _whole("group", self.group, low=2, high=2**20)
        _demand(self.group % 2 == 0, "group", "be even", self.group)
        _demand(0 < self.scale[0] <= self.scale[1] <= 1, "scale", "satisfy 0 < low <= high <= 1", self.scale)
        low, high = self.ratio
        within = 1 / MAX_RATIO <= low <= high <= MAX_RATIO
        _demand(within, "ratio", f"satisfy 1/{MAX_RATIO:g} <= low <= high <= {MAX_RATIO:g}", self.ratio)
        for name in ("flip", "erase", "mix_switch"):
            _demand(0 <= getattr(self, name) <= 1, name, "be a probability, 0 to 1", getattr(self, name))
        _demand(0 <= self.label_smoothing < 1, "label_smoothing", "be at least 0 and below 1", self.label_smoothing)
        for name in ("mixup", "cutmix"):
            alphas = f"be 0 (off) or one of {', '.join(map(str, BETA_ALPHAS))}"
            _demand(getattr(self, name) in (0.0, *BETA_ALPHAS), name, alphas, getattr(self, name))
        _demand(all(0 <= m <= 1 for m in self.mean), "mean", "lie in 0 to 1", self.mean)
        _demand(all(0 < s <= 1 for s in self.std), "std", "be above 0 and at most 1", self.std)
        if self.rand_augment is not None:
            _demand(isinstance(self.rand_augment, str), "rand_augment", "be text or null", self.rand_augment)
            RandAugment.parse(self.rand_augment)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The recipe with these fields.

        Raises:
            UsageError: a field is unknown or out of bounds, or the recipe is of a newer version.
        """
        # The version first: a newer recipe may have fields unknown to this release.
        _check_version(values.get("version", VERSION))
        return super(CropRecipe, cls).from_json(values)

    @property
    def mixes(self) -> bool:
        """Whether crops are mixed with a partner."""
        return bool(self.mixup or self.cutmix)

    @property
    def fill(self) -> tuple[int, int, int]:
        """The colour, 0..255 per channel, of pixels that a geometric operation uncovers."""
        red, green, blue = (round(255 * channel) for channel in self.mean)
        return red, green, blue

    def draw(
        self,
        seed: int,
        samples_n: ArrayLike,
        *,
        heights: ArrayLike,
        widths: ArrayLike,
        total: int,
        partners_n: NDArray[np.int64] | None = None,
    ) -> Draws:
        """The crops of these samples: a `CROP_DRAW` array [n], a pure function of the arguments.

        A crop depends on neither the other samples asked for nor their order.

        Args:
            seed: the augmentation seed, 0 or above.
            samples_n: integers [n], indices in the data set's canonical order.
            heights: integers [n], source pixels.
            widths: integers [n], source pixels.
            total: number of samples of the data set, which decides the pairs of its last group.
            partners_n: the result of `partners`, if the caller has it: most of the work for few samples.

        Raises:
            ValueError: a sample is outside 0..total-1, a source size is below 1, or the lengths differ.
        """
        samples = _samples(seed, samples_n, total)
        height_n, width_n = np.asarray(heights, np.int64), np.asarray(widths, np.int64)
        if not samples.shape == height_n.shape == width_n.shape:
            raise ValueError(
                f"lengths differ: {samples.shape} samples, {height_n.shape} heights, {width_n.shape} widths"
            )
        if len(samples) and min(height_n.min(), width_n.min()) < 1:
            raise ValueError(f"source sizes must be at least 1, found {min(height_n.min(), width_n.min())}")
        if partners_n is None:
            partners_n = self.partners(seed, samples, total=total)
        return draw_crops(self, seed, samples, partners_n, heights=height_n, widths=width_n)

    def partners(self, seed: int, samples_n: ArrayLike, *, total: int) -> NDArray[np.int64]:
        """int64 [n], the samples these are mixed with: the `partner` field of `draw`.

        Partners are mutual and in the same group; a sample that is not mixed is its own partner.

        Raises:
            ValueError: a sample is outside 0..total-1.
        """
        samples = _samples(seed, samples_n, total)
        if not self.mixes:
            return samples.copy()
        key = stream_key(version=self.version, key=self.key, seed=seed)
        return draw_partners(key, samples, total=total, group=self.group)


def _samples(seed: int, samples_n: ArrayLike, total: int) -> NDArray[np.int64]:
    if seed < 0:
        raise ValueError(f"seed must be at least 0, found {seed}")
    samples = np.asarray(samples_n, np.int64)
    if samples.ndim != 1:
        raise ValueError(f"samples must be one row of indices, found shape {samples.shape}")
    if len(samples) and not 0 <= samples.min() <= samples.max() < total:
        raise ValueError(f"samples must lie in 0..{total - 1}, found {samples.min()}..{samples.max()}")
    return samples


def _check_version(version: Any) -> None:
    if version != VERSION or isinstance(version, bool):
        raise UsageError(
            f"crop recipe version {version!r} is a newer format than this release knows ({VERSION}); "
            "upgrade cskd-pipeline to use it"
        )


def _demand(met: bool, name: str, what: str, found: object) -> None:
    if not met:
        raise UsageError(f"crop recipe: {name} must {what}, found {found!r}")


def _whole(name: str, value: Any, *, low: int, high: int) -> None:
    met = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    _demand(met, name, f"be a whole number from {low} to {high}", value)


def _number(name: str, value: Any) -> float:
    _demand(isinstance(value, int | float) and not isinstance(value, bool), name, "be a number", value)
    return float(value)


def _numbers(name: str, value: Any, count: int) -> tuple[float, ...]:
    _demand(isinstance(value, tuple | list) and len(value) == count, name, f"be {count} numbers", value)
    return tuple(_number(name, item) for item in value)


RECIPES: dict[str, CropRecipe] = {
    "deit": CropRecipe(name="deit"),
    "plain": CropRecipe(name="plain", rand_augment=None, erase=0.0, mixup=0.0, cutmix=0.0, label_smoothing=0.0),
}
"""Presets by name; adapt one with `dataclasses.replace`."""
