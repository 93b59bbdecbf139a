"""A student as plain timm sees it."""

from __future__ import annotations

from torch import Tensor, nn

from cskd_pipeline.models.student.heads import Student


def plain_state_dict(student: Student) -> dict[str, Tensor]:
    """The weights under timm's own names, on the CPU: timm.create_model(..., checkpoint_path=FILE) loads them.

    A distilled ViT keeps `head_dist`, which timm's evaluation averages with `head`. The second head that was
    added to a plain ViT is left out: timm's model has no place for it.
    """
    return {name: value.detach().cpu().contiguous() for name, value in student.model.state_dict().items()}


def parameter_count(module: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
