"""Ways to combine a student's heads into one prediction.

The average of three heads is CSKD's (arXiv 2307.08500, official code). The average of two is DeiT's (arXiv 2012.12877),
and what timm computes for a distilled ViT.
"""

from __future__ import annotations

from torch import Tensor

from cskd_pipeline.batch import StudentOutput

HEADS = ("cls", "two_head", "three_head")
"""z_cls · (z_cls + z_dist) / 2 · (z_cls + z_dist + mean_p z_patch) / 3, from the fewest heads to the most."""


def combined_heads(output: StudentOutput) -> dict[str, Tensor]:
    """fp32 logits [B, C] of every combination that the student has heads for, in the order of `HEADS`."""
    cls_BC = output.cls_BC.float()
    combined = {"cls": cls_BC}
    if output.dist_BC is not None:
        dist_BC = output.dist_BC.float()
        combined["two_head"] = (cls_BC + dist_BC) / 2
        if output.dense_BCHW is not None:
            combined["three_head"] = (cls_BC + dist_BC + output.dense_BCHW.float().mean((2, 3))) / 3
    return combined
