"""A synthetic teacher: dense logits over 1,000 classes with the statistics of a CNN with pooling and a linear head.

Weights. Classes form superclasses of uneven size, superclasses form groups; a class's weight vector is the unit sum of
a group's, a superclass's and its own random direction, so that classes of a superclass are confused with one another.

Features of a crop, [P, D], are a sum of class directions, each with a strength that varies over the grid:

- the object: one blob of the crop's class; one crop in eight shows none of it;
- two confusers: classes of the same superclass, strongest where the object is;
- one to three things around: blobs of other classes, most of them of the same group;
- noise, half smooth over the grid and half not.

Then every position gets a share of the crop's mean, as receptive fields overlap, and crops with weak features are
scaled up most of the way to a common norm, as batch normalisation does.

Logits are weights times features plus a bias per class; the global logits are their mean over positions, exactly as
for a linear head after average pooling. The regimes differ in a handful of strengths (`REGIMES`): `peaky` is sure of
itself like a network trained on plain labels, `flat` like one trained on mixed and smoothed ones, `mid` lies between.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

CLASSES, WIDTH, GRID = 1000, 256, 7
_GROUPS, _SUPERCLASSES = 12, 100


@dataclasses.dataclass(frozen=True, slots=True)
class Regime:
    """Strengths of what a crop's features consist of.

    Attributes:
        target: of the object and its confusers.
        around: of other things.
        noise: of noise.
        leak: share of the crop's mean in every position.
        norm: feature norm that weak crops are scaled towards.
        scale: from feature products to logits.
    """

    target: float
    around: float
    noise: float
    leak: float
    norm: float
    scale: float


REGIMES = {
    "peaky": Regime(target=1.45, around=0.70, noise=0.55, leak=0.22, norm=1.2, scale=24),
    "mid": Regime(target=1.30, around=0.85, noise=0.65, leak=0.12, norm=1.2, scale=20),
    "flat": Regime(target=1.10, around=0.85, noise=0.70, leak=0.12, norm=1.1, scale=14),
}


class SyntheticTeacher:
    """Logits of a regime, crops drawn one after another from `seed`; the classes are the same for every seed."""

    def __init__(self, regime: Regime, *, seed: int, classes: int = CLASSES) -> None:
        self.regime, self.classes = regime, classes
        fixed = torch.Generator().manual_seed(20_230)
        self._random = torch.Generator().manual_seed(seed)
        # Squaring crowds the classes into the first superclasses: a few large ones, many small ones.
        self._superclass_C = (torch.rand(classes, generator=fixed).pow(1.5) * _SUPERCLASSES).long().sort().values
        self._group_C = self._superclass_C * _GROUPS // _SUPERCLASSES
        group = _directions(_GROUPS, fixed)[self._group_C]
        superclass = _directions(_SUPERCLASSES, fixed)[self._superclass_C]
        own = _directions(classes, fixed)
        self.weight_CD = torch.nn.functional.normalize(0.55 * group + 0.75 * superclass + 0.65 * own, dim=1)
        self.bias_C = 0.3 * torch.randn(classes, generator=fixed)
        places = torch.arange(GRID, dtype=torch.float32)
        self._row_P, self._column_P = (x.reshape(-1) for x in torch.meshgrid(places, places, indexing="ij"))
        self._smoothing_PP = _smoothing(GRID)

    def __call__(self, crops: int) -> tuple[Tensor, Tensor]:
        """Dense logits fp32 [crops, P, C] and global logits [crops, C] of the next crops, classes uniform."""
        regime = self.regime
        label_n = torch.randint(self.classes, (crops,), generator=self._random)
        seen_n1 = (self._uniform(crops, 1) > 0.12) * (0.75 + 0.5 * self._uniform(crops, 1))
        object_nP = self._blobs(crops, 1.6, 4.0) * seen_n1
        features_nPD = self._spread(regime.target * object_nP, label_n)
        for _ in range(2):
            confuser_nP = self._blobs(crops, 1.5, 4.0) * 0.9 * self._uniform(crops, 1) * object_nP.clamp(min=0.15)
            features_nPD += self._spread(regime.target * confuser_nP, self._sibling(label_n, self._superclass_C))
        for presence in (1.0, 0.6, 0.35):
            sibling_n = self._sibling(label_n, self._group_C)
            stranger_n = torch.randint(self.classes, (crops,), generator=self._random)
            class_n = torch.where(self._uniform(crops) < 0.6, sibling_n, stranger_n)
            strength_n1 = -self._uniform(crops, 1).clamp(min=1e-6).log() * (self._uniform(crops, 1) < presence)
            features_nPD += self._spread(regime.around * strength_n1 * self._blobs(crops, 0.9, 2.5), class_n)
        features_nPD += regime.noise * 0.1 * self._noise(crops)
        features_nPD = torch.lerp(features_nPD, features_nPD.mean(1, keepdim=True).expand_as(features_nPD), regime.leak)
        norm_n11 = features_nPD.square().sum(2).mean(1).sqrt()[:, None, None]
        features_nPD *= (regime.norm / norm_n11).clamp(min=1).pow(0.8)
        dense_nPC = regime.scale * (features_nPD @ self.weight_CD.T) + self.bias_C
        return dense_nPC, dense_nPC.mean(1)

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self._random)

    def _spread(self, strength_nP: Tensor, class_n: Tensor) -> Tensor:
        return strength_nP[:, :, None] * self.weight_CD[class_n][:, None, :]

    def _blobs(self, crops: int, narrowest: float, widest: float) -> Tensor:
        """Gaussians [n, P] with centres anywhere on the grid, widths in cells, somewhat longer one way."""
        row_n1, column_n1 = (self._uniform(crops, 1) * GRID - 0.5 for _ in range(2))
        width_n1 = narrowest + self._uniform(crops, 1) * (widest - narrowest)
        stretch_n1 = ((self._uniform(crops, 1) - 0.5) * 0.8).exp()
        squares_nP = (self._row_P - row_n1).square() * stretch_n1 + (self._column_P - column_n1).square() / stretch_n1
        return (-squares_nP / (2 * width_n1.square())).exp()

    def _sibling(self, class_n: Tensor, parent_C: Tensor) -> Tensor:
        """A class of the same parent for each class; members of a parent are neighbours."""
        parent_n = parent_C[class_n].contiguous()
        first_n = torch.searchsorted(parent_C, parent_n)
        count_n = torch.searchsorted(parent_C, parent_n, right=True) - first_n
        return first_n + (self._uniform(len(class_n)) * count_n).long().minimum(count_n - 1)

    def _noise(self, crops: int) -> Tensor:
        """[n, P, D], of unit variance or nearly: most of it smooth."""
        smooth_nPD = self._smoothing_PP @ torch.randn(crops, GRID * GRID, WIDTH, generator=self._random)
        rough_nPD = torch.randn(crops, GRID * GRID, WIDTH, generator=self._random)
        return 0.9 * smooth_nPD / smooth_nPD.std() + 0.436 * rough_nPD


def _directions(count: int, random: torch.Generator) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(count, WIDTH, generator=random), dim=1)


def _smoothing(side: int) -> Tensor:
    """[P, P], a Gaussian of one cell over the grid's rows and columns, cut off at two cells."""
    distance = torch.arange(side)[:, None] - torch.arange(side)[None]
    kernel = torch.where(distance.abs() <= 2, (-distance.square() / 2).exp(), torch.tensor(0.0))
    kernel = kernel / kernel.sum(1, keepdim=True)
    return torch.kron(kernel, kernel)
