"""The three kinds of student: class logits alone, distillation token, and pooled feature with a second head.

Heads after CSKD (arXiv 2307.08500): z_cls from the class token, z_dist from the distillation token, z_patch from
the patch tokens through the SAME head as z_dist. Which of them a loss reads is the objective's business.
"""

from __future__ import annotations

import abc
from typing import Any

from torch import Tensor, nn

from cskd_pipeline.batch import StudentOutput
from cskd_pipeline.models.student.grid import dense_logits
from cskd_pipeline.models.student.spec import StudentSpec


class Student(nn.Module, abc.ABC):
    """A timm model whose forward pass returns a `StudentOutput`.

    Attributes:
        spec: what it was built from.
        model: the timm model.
        fresh: keys of weights that a file given for the start did not provide.
        size: side in pixels of the crops that it was tried with.
    """

    def __init__(self, model: Any, spec: StudentSpec) -> None:
        super().__init__()
        self.spec = spec
        self.model = model
        self.fresh: tuple[str, ...] = ()
        self.size = 0

    def no_weight_decay(self) -> set[str]:
        """Parameters that timm's optimizers must not decay besides the one-dimensional ones."""
        listed: set[str] = getattr(self.model, "no_weight_decay", set)()
        return {f"model.{name}" for name in listed}

    @abc.abstractmethod
    def forward(self, pixels_B3SS: Tensor) -> StudentOutput:
        """Logits of every head that this student has."""


class PlainStudent(Student):
    """Any timm classifier, as it is."""

    def forward(self, pixels_B3SS: Tensor) -> StudentOutput:
        """Class logits alone."""
        return StudentOutput(cls_BC=self.model(pixels_B3SS))


class TokenStudent(Student):
    """A ViT with a class and a distillation token (timm's VisionTransformerDistilled)."""

    def forward(self, pixels_B3SS: Tensor) -> StudentOutput:
        """Class and distillation logits, and dense ones where the student was given a grid.

        timm's own forward pass averages the heads or not, depending on a mode; this one does not consult it.
        """
        model = self.model
        tokens_BND = model.forward_features(pixels_B3SS)
        prefix: int = model.num_prefix_tokens
        dense_BCHW = None
        if self.spec.grid is not None:
            dense_BCHW = dense_logits(
                tokens_BND[:, prefix:],
                model.head_dist,
                patches=patch_grid(model, pixels_B3SS),
                grid=self.spec.grid,
            )
        return StudentOutput(
            cls_BC=model.head(model.head_drop(tokens_BND[:, 0])),
            dist_BC=model.head_dist(model.head_drop(tokens_BND[:, 1])),
            dense_BCHW=dense_BCHW,
        )


class PooledStudent(Student):
    """A plain ViT with a second linear head, fed with the pooled feature and with the patch tokens."""

    def __init__(self, model: Any, spec: StudentSpec) -> None:
        super().__init__(model, spec)
        self.head_dist = nn.Linear(model.head.in_features, spec.classes)
        nn.init.trunc_normal_(self.head_dist.weight, std=0.02)
        nn.init.zeros_(self.head_dist.bias)

    def forward(self, pixels_B3SS: Tensor) -> StudentOutput:
        """Class and distillation logits, and dense ones where the student was given a grid."""
        model = self.model
        tokens_BND = model.forward_features(pixels_B3SS)
        pooled_BD = model.forward_head(tokens_BND, pre_logits=True)
        dense_BCHW = None
        if self.spec.grid is not None:
            # Average-pooling ViTs norm after pooling; per token it puts both inputs of the head on one scale.
            patches_BND = model.fc_norm(tokens_BND[:, model.num_prefix_tokens :])
            dense_BCHW = dense_logits(
                patches_BND, self.head_dist, patches=patch_grid(model, pixels_B3SS), grid=self.spec.grid
            )
        return StudentOutput(cls_BC=model.head(pooled_BD), dist_BC=self.head_dist(pooled_BD), dense_BCHW=dense_BCHW)


def patch_grid(model: Any, pixels_B3SS: Tensor) -> tuple[int, int]:
    """Rows and columns of the patch tokens for these pixels (models with dynamic image size included)."""
    rows, columns = model.patch_embed.dynamic_feat_size(tuple(pixels_B3SS.shape[-2:]))
    return rows, columns
