"""ViTKD: mimic the first layers, generate the last one (Yang et al., arXiv 2209.02432), with or without NKD."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from cskd_pipeline.batch import FeatureShape, MixedLabels, StudentOutput, Targets, TokenTargets
from cskd_pipeline.errors import MismatchError, UsageError
from cskd_pipeline.losses import (
    as_precise_as,
    at_positions,
    draw_mask,
    known_tokens,
    normalized,
    require_token_targets,
    require_tokens,
    summed_distance,
    truth_of_all_heads,
)
from cskd_pipeline.objectives.logit import LogitObjective
from cskd_pipeline.record import require_flag, require_range


@dataclasses.dataclass(frozen=True, slots=True)
class Vitkd(LogitObjective):
    """CE(z_cls, y) + alpha sum |A_l s_l - t_l|^2 over blocks 0, 1 + (beta / mask) sum |G - t|^2 over masked positions.

    s and t are the student's and the teacher's patch tokens after a block, those of the last one after the final norm.
    A_l is linear, none where both are of one width. G is two 3 x 3 convolutions over the last block's A s in which a
    share of the positions, drawn anew for every crop and step, shows one learned token instead. Sums go over positions
    and channels. Where the labels hold some positions alone, the sums are estimated from them, without bias.

    Attributes:
        alpha: weight of the first two blocks.
        beta: weight of the last block.
        mask: share of the positions that are masked.
        nkd: add the distillation of `nkd`, with its gamma and temperature.
        gamma: weight of the classes other than the label.
        temperature: T.
    """

    alpha: float = 3e-5
    beta: float = 3e-6
    mask: float = 0.5
    nkd: bool = False
    gamma: float = 1.0
    temperature: float = 1.0

    name: ClassVar[str] = "vitkd"
    reads_truth: ClassVar[bool] = True
    layers: ClassVar[tuple[int, ...]] = (0, 1, -1)

    def __post_init__(self) -> None:
        LogitObjective.__post_init__(self)
        require_range("objective alpha", self.alpha, low=0)
        require_range("objective beta", self.beta, low=0)
        require_range("objective mask", self.mask, above=0, high=1)
        require_flag("objective nkd", self.nkd)
        require_range("objective gamma", self.gamma, low=0)
        require_range("objective temperature", self.temperature, above=0)

    @property
    def needs(self) -> frozenset[str]:
        """Patch tokens, and with `nkd` what that reads."""
        return frozenset({"features.tokens", "soft", "truth"} if self.nkd else {"features.tokens"})

    def adapter(self, student: tuple[int, int], teacher: FeatureShape) -> nn.Module:
        """The layers A and G.

        Raises:
            MismatchError: the labels are of other blocks, or the student has another number of patch tokens.
        """
        positions, width = student
        assert teacher.tokens is not None, "the objective needs them"
        if teacher.layers != self.layers:
            raise MismatchError(
                f"the teacher's patch tokens are of blocks {[*teacher.layers]}, objective vitkd reads "
                f"{[*self.layers]}; leave out --target-arg features.tokens.layers where they are made"
            )
        if positions != math.prod(teacher.grid):
            raise MismatchError(
                f"the student has {positions} patch tokens, the teacher {math.prod(teacher.grid)}; objective vitkd "
                "needs as many: choose another --student-arg patch_size, or another student"
            )
        return VitkdAdapter(width, teacher.tokens, grid=teacher.grid, blocks=len(self.layers))

    def distillation(self, student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor) -> Tensor:
        """NKD's, fp32 [B]."""
        return normalized(student_BC, teacher_BC, labels_B, gamma=self.gamma, temperature=self.temperature)

    def __call__(
        self, output: StudentOutput, labels: MixedLabels, targets: Targets | None, adapter: nn.Module | None = None
    ) -> Tensor:
        """The loss of every example, fp32 [B]."""
        tokens, adapter = require_tokens(output, adapter, layers=len(self.layers))
        if not isinstance(adapter, VitkdAdapter):
            raise UsageError(
                f"objective vitkd takes the adapter of a student made for it, found {type(adapter).__name__}"
            )
        taught = require_token_targets(targets)
        if self.nkd:
            loss_B = LogitObjective.__call__(self, output, labels, targets)
        else:
            loss_B = truth_of_all_heads(output, labels)
        mask_BP, chosen_Bm = draw_mask(taught.kept_Bn, positions=taught.positions, masked=self.masked(taught.positions))
        with as_precise_as(output.cls_BC):
            return loss_B + self.on_tokens(tokens, taught, adapter, mask_BP, chosen_Bm)

    def masked(self, positions: int) -> int:
        """How many of a crop's positions are masked."""
        return positions - int(positions * (1 - self.mask))

    def on_tokens(
        self,
        tokens: tuple[Tensor, ...],
        taught: TokenTargets,
        adapter: VitkdAdapter,
        mask_BP: Tensor,
        chosen_Bm: Tensor,
    ) -> Tensor:
        """The two terms on tokens with a mask as `draw_mask` gives it, fp32 [B]."""
        known, positions = taught.kept_Bn, taught.positions
        low_B = torch.zeros(len(known), device=known.device)
        for block, (align, student_BND) in enumerate(zip(adapter.low, tokens[:-1], strict=True)):
            aligned_BnD, teacher_BnD = align(at_positions(student_BND, known)), taught.values_BLnD[:, block]
            low_B = low_B + summed_distance(aligned_BnD, teacher_BnD, positions=positions)
        generated_BmD = at_positions(adapter.generate(tokens[-1], mask_BP), chosen_Bm)
        teacher_BmD = known_tokens(taught, -1, chosen_Bm)
        high_B = summed_distance(generated_BmD, teacher_BmD, positions=self.masked(positions))
        return self.alpha * low_B + self.beta / self.mask * high_B


class VitkdAdapter(nn.Module):
    """The layers between student and teacher: as many parameters as the paper's."""

    def __init__(self, student: int, teacher: int, *, grid: tuple[int, int], blocks: int) -> None:
        """For patch tokens of these widths, row by row on this grid."""
        super().__init__()
        self._grid = grid

        def align() -> nn.Module:
            return nn.Identity() if student == teacher else nn.Linear(student, teacher)

        self.low = nn.ModuleList(align() for _ in range(blocks - 1))
        self.high = align()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, teacher))
        self.generation = nn.Sequential(
            nn.Conv2d(teacher, teacher, 3, padding=1), nn.ReLU(), nn.Conv2d(teacher, teacher, 3, padding=1)
        )

    def generate(self, tokens_BPD: Tensor, mask_BP: Tensor) -> Tensor:
        """What the last block's tokens would be, from those that are not masked: [B, P, D of the teacher]."""
        shown_BPD = torch.where(mask_BP[:, :, None], self.mask_token, self.high(tokens_BPD))
        map_BDHW = shown_BPD.transpose(1, 2).reshape(len(shown_BPD), -1, *self._grid)
        generated: Tensor = self.generation(map_BDHW).flatten(2).transpose(1, 2)
        return generated
