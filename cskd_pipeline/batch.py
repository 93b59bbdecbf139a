"""The nouns that travel: true labels, a teacher's targets, a batch, and what a student gives back.

Shape letters, used as suffixes throughout: B batch, C classes, H W teacher grid, P = H*W positions,
N patch tokens, D width, S samples or the side of a crop, k and K kept classes, U slots of a palette.

All are named tuples, which the tools of other training loops move, pin, cast and split as they do any tuple of tensors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class MixedLabels(NamedTuple):
    """The true labels of a batch of mixed crops: `weight` of the first class, the rest of the second.

    Attributes:
        first_B: int64, the crop's own class.
        second_B: int64, its mix partner's class (the same class where nothing was mixed).
        weight_B: fp32 in [0, 1], share of the first class.
        smoothing: label smoothing epsilon of the recipe.
    """

    first_B: Tensor
    second_B: Tensor
    weight_B: Tensor
    smoothing: float = 0.0

    @property
    def heavier_B(self) -> Tensor:
        """int64, the class with the larger weight, the first of equal ones."""
        return torch.where(self.weight_B >= 0.5, self.first_B, self.second_B)

    def probabilities_BC(self, classes: int) -> Tensor:
        """fp32 [B, classes]: each one-hot label smoothed to 1 - eps + eps/C and eps/C, then mixed."""
        off = self.smoothing / classes
        on = 1.0 - self.smoothing + off
        weight_B1 = self.weight_B[:, None]
        out = torch.full((len(self.first_B), classes), off, device=self.weight_B.device)
        out.scatter_add_(1, self.first_B[:, None], weight_B1 * (on - off))
        out.scatter_add_(1, self.second_B[:, None], (1 - weight_B1) * (on - off))
        return out


class SparseTargets(NamedTuple):
    """Distributions over classes of a batch, as a few named classes each and a rule for the others.

    Every crop has a palette of U slots (classes, each once). The global output keeps the first K slots or fewer, a
    position keeps up to k slots. All other classes share a mass, the tail; `losses.palette` says how. Logarithms are at
    temperature 1, relative to the likeliest kept class: log-probabilities up to a constant of each distribution. All
    tensors are on one device.

    Attributes:
        class_BU: int64, the class of each slot; 0 where not in use.
        used_BU: bool, which slots are in use.
        slot_BkP: uint8, the kept slots of every position, the likeliest first; U where there are fewer.
        log_BkP: fp32, their logarithms, minus infinity where there are fewer.
        tail_BP: fp32, logarithm of the mass of all other classes together.
        global_log_BK: fp32, logarithms of the first K slots for the global output, minus infinity where not kept.
        global_tail_B: fp32, the global output's tail.
        classes: C.
    """

    class_BU: Tensor
    used_BU: Tensor
    slot_BkP: Tensor
    log_BkP: Tensor
    tail_BP: Tensor
    global_log_BK: Tensor
    global_tail_B: Tensor
    classes: int


class Features(NamedTuple):
    """What a teacher shows of its inside about a batch; what was not asked for is None.

    Attributes:
        pooled_BD: fp32, the feature that its classifier takes.
        tokens_BLPD: fp32, the patch tokens of some layers; P = H * W, row by row.
        words_BP: int64, a random word of 32 bits for each position, which chooses positions to keep.
    """

    pooled_BD: Tensor | None = None
    tokens_BLPD: Tensor | None = None
    words_BP: Tensor | None = None


class TokenTargets(NamedTuple):
    """Patch tokens of a teacher at some of the P positions, the same ones in every layer.

    Attributes:
        values_BLnD: fp32, the tokens of L layers at n positions.
        kept_Bn: int64, these positions (p = row * W + column), ascending.
        positions: P.
    """

    values_BLnD: Tensor
    kept_Bn: Tensor
    positions: int


class FeatureShape(NamedTuple):
    """Which features of a teacher there are to learn from.

    Attributes:
        pooled: width of the pooled feature; None where there is none.
        tokens: width of the patch tokens; None where there are none.
        layers: the blocks that the tokens are of; -1 is the last one.
        grid: (H, W) of the positions.
    """

    pooled: int | None
    tokens: int | None
    layers: tuple[int, ...]
    grid: tuple[int, int]


class Targets(NamedTuple):
    """The teacher's targets of one batch; a field that was not asked for is None.

    Attributes:
        ratio_steps: r * 65536 of the schedule, 0 (all global) to 65536 (all local).
        hard_global_B: int64, argmax_c g.
        hard_dense_BHW: int64, argmax_c r*d + (1-r)*g at every grid position, ties to the lowest class.
        logits_global_BC: fp32, g.
        logits_dense_BCHW: fp32, d.
        sparse: soft targets of all positions (p = row * W + column) and of the global output, instead of logits.
        label_odds_B2: fp32, log p - log (1 - p) of g's probability of the crop's own class and of its mix partner's.
        pooled_BD: fp32, the feature that the teacher's classifier takes.
        tokens: the teacher's patch tokens.
        second: those of the second teacher, for objectives that have two.
    """

    ratio_steps: int
    hard_global_B: Tensor | None = None
    hard_dense_BHW: Tensor | None = None
    logits_global_BC: Tensor | None = None
    logits_dense_BCHW: Tensor | None = None
    sparse: SparseTargets | None = None
    label_odds_B2: Tensor | None = None
    pooled_BD: Tensor | None = None
    tokens: TokenTargets | None = None
    second: Targets | None = None


class TrainBatch(NamedTuple):
    """One micro-batch of one rank, on the device of the model: (pixels, labels, targets).

    Attributes:
        pixels_B3SS: fp32, finished (erased, mixed, normalised for the student).
        labels: the true labels, mixed as the pixels are.
        targets: the teacher's targets, or None where the objective needs none.
    """

    pixels_B3SS: Tensor
    labels: MixedLabels
    targets: Targets | None = None


class StudentOutput(NamedTuple):
    """Logits of a student's heads; a head that the student lacks, or was not asked for, is None.

    Attributes:
        cls_BC: z_cls, the class token through `head`.
        dist_BC: z_dist, the distillation token through `head_dist`.
        dense_BCHW: z_patch, patch tokens pooled to the teacher's grid, through the same `head_dist`.
        conv_BC: z_conv, the convolution token of a CivT through `head_conv`.
        inv_BC: z_inv, the involution token of a CivT through `head_inv`.
        tokens: [B, N, D] each, the patch tokens of the layers that the student was made to show.
    """

    cls_BC: Tensor
    dist_BC: Tensor | None = None
    dense_BCHW: Tensor | None = None
    conv_BC: Tensor | None = None
    inv_BC: Tensor | None = None
    tokens: tuple[Tensor, ...] | None = None
