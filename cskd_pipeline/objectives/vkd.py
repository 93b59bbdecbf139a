"""VkD: an orthogonal projection onto the teacher's normed feature (Miles et al., CVPR 2024, arXiv 2403.06213)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from cskd_pipeline.batch import FeatureShape, MixedLabels, StudentOutput, Targets
from cskd_pipeline.losses import (
    as_precise_as,
    normed_distance,
    require_pooled,
    require_tokens,
    tempered_divergence,
)
from cskd_pipeline.objectives.logit import LogitObjective
from cskd_pipeline.record import require_range


@dataclasses.dataclass(frozen=True, slots=True)
class Vkd(LogitObjective):
    """CE(z_cls, y) + T^2 KL(softmax(g/T) || softmax(z/T)) + weight smoothL1(W mean_p s[p], LN(f)).

    s are the student's last patch tokens, f is the teacher's pooled feature, W has orthonormal columns (rows where the
    student is wider) and is learned. The smooth L1 distance is meaned over the entries of f, LN has no weights.

    Attributes:
        weight: of the last term.
        temperature: T.
    """

    weight: float = 1.0
    temperature: float = 1.0

    name: ClassVar[str] = "vkd"
    second_head: ClassVar[bool] = True
    layers: ClassVar[tuple[int, ...]] = (-1,)

    def __post_init__(self) -> None:
        LogitObjective.__post_init__(self)
        require_range("objective weight", self.weight, low=0)
        require_range("objective temperature", self.temperature, above=0)

    @property
    def needs(self) -> frozenset[str]:
        """Soft targets and the pooled feature."""
        return frozenset({"soft", "features.pooled"})

    def adapter(self, student: tuple[int, int], teacher: FeatureShape) -> nn.Module:
        """W."""
        assert teacher.pooled is not None, "the objective needs it"
        projection: nn.Module = orthogonal(nn.Linear(student[1], teacher.pooled, bias=False))
        return projection

    def distillation(self, student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor) -> Tensor:
        """T^2 KL, fp32 [B]."""
        return tempered_divergence(student_BC, teacher_BC, temperature=self.temperature)

    def __call__(
        self, output: StudentOutput, labels: MixedLabels, targets: Targets | None, adapter: nn.Module | None = None
    ) -> Tensor:
        """The loss of every example, fp32 [B]."""
        loss_B = LogitObjective.__call__(self, output, labels, targets)
        (tokens_BND,), adapter = require_tokens(output, adapter, layers=1)
        pooled_BD = require_pooled(targets)
        with as_precise_as(output.cls_BC):
            projected_BD = adapter(tokens_BND.mean(1))
        return loss_B + self.weight * normed_distance(projected_BD, pooled_BD)
