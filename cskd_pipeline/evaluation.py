"""Evaluation: exact scores of every combination of a student's heads, over all ranks, for several models at once.

The average of three heads is CSKD's (arXiv 2307.08500, official code). The average of two is DeiT's (arXiv 2012.12877),
and what timm computes for a distilled ViT. The average of a CivT's heads is Co-advise's (arXiv 2106.12378).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cskd_pipeline.batch import StudentOutput
from cskd_pipeline.errors import DataError
from cskd_pipeline.record import Record
from cskd_pipeline.runtime.device import device_of
from cskd_pipeline.runtime.ranks import copy_buffers_from_first, sum_over_ranks

HEADS = ("cls", "two_head", "three_head", "conv", "inv", "civt_head")
"""z_cls · (z_cls + z_dist) / 2 · (z_cls + z_dist + mean_p z_patch) / 3; of a CivT, z_conv · z_inv · the mean of z_cls
and these two."""

_TOP = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Score(Record):
    """Accuracy over a data set.

    Attributes:
        top1, top5: per cent of the images whose label is the top class, or among the top five (or all, of fewer).
        loss: mean cross-entropy in nats.
        count: number of images.
    """

    top1: float
    top5: float
    loss: float
    count: int


def combined_heads(output: StudentOutput) -> dict[str, Tensor]:
    """fp32 logits [B, C] of every combination that the student has heads for, in the order of `HEADS`."""
    cls_BC = output.cls_BC.float()
    combined = {"cls": cls_BC}
    if output.dist_BC is not None:
        dist_BC = output.dist_BC.float()
        combined["two_head"] = (cls_BC + dist_BC) / 2
        if output.dense_BCHW is not None:
            combined["three_head"] = (cls_BC + dist_BC + output.dense_BCHW.float().mean((2, 3))) / 3
    if output.conv_BC is not None and output.inv_BC is not None:
        conv_BC, inv_BC = output.conv_BC.float(), output.inv_BC.float()
        combined |= {"conv": conv_BC, "inv": inv_BC, "civt_head": (cls_BC + conv_BC + inv_BC) / 3}
    return combined


@torch.no_grad()  # not inference_mode: what a model caches here may be needed in the next backward pass
def evaluate(
    models: Mapping[str, nn.Module],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    device: torch.device | None = None,
    autocast: torch.dtype | None = None,
) -> dict[str, dict[str, Score]]:
    """Scores by model name and by combination of heads, exact over the whole set.

    Counts are summed over all ranks: every image must be in exactly one rank's batches (ranks may have different
    numbers of images; nothing is padded). Logits, softmax and losses are fp32, sums fp64.

    Args:
        models: students by name, each returning a `StudentOutput`; all see the same batches. They run in evaluation
            mode and then return to the mode they were in.
        batches: this rank's (pixels_B3SS fp32, labels_B int64), on `device`; None is where the first model is.
        autocast: dtype of the forward pass, or None for fp32.

    Raises:
        DataError: no rank has an image.
    """
    device = device or device_of(next(iter(models.values()), nn.Identity()))
    modes = {name: model.training for name, model in models.items()}
    # Rows of the table are (model, head); columns top-1 hits, top-5 hits, summed loss, images.
    sums = torch.zeros(len(models), len(HEADS), 4, dtype=torch.float64, device=device)
    for model in models.values():
        copy_buffers_from_first(model)
        model.eval()
    try:
        for pixels_B3SS, labels_B in batches:
            for row, model in enumerate(models.values()):
                with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
                    output = model(pixels_B3SS)
                for head, logits_BC in combined_heads(output).items():
                    sums[row, HEADS.index(head)] += _tally(logits_BC, labels_B)
    finally:
        for name, model in models.items():
            model.train(modes[name])
    table = sum_over_ranks(sums).tolist()
    if models and not any(count for *_, count in table[0]):
        raise DataError("the evaluation set is empty")
    return {
        name: {head: _score(*row) for head, row in zip(HEADS, rows, strict=True) if row[3]}
        for name, rows in zip(models, table, strict=True)
    }


def _tally(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """fp64 [4]: top-1 hits, top-5 hits, summed loss, number of images."""
    best_BK = logits_BC.topk(min(_TOP, logits_BC.shape[1]), dim=1).indices
    hits_BK = best_BK == labels_B[:, None]
    loss_B = cross_entropy(logits_BC, labels_B, reduction="none")
    count = torch.tensor(len(labels_B), device=labels_B.device)
    return torch.stack([hits_BK[:, 0].sum().double(), hits_BK.sum().double(), loss_B.double().sum(), count.double()])


def _score(top1: float, top5: float, loss: float, count: float) -> Score:
    return Score(top1=100 * top1 / count, top5=100 * top5 / count, loss=loss / count, count=int(count))
