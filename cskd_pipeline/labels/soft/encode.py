"""Logits to soft rows, on the logits' device.

All logarithms are relative to the likeliest class of the position. Depths (z_first - z_c) / step are exact in fp32 up
to one rounding, on every device; only the masses of tails pass through exp and log.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from cskd_pipeline.errors import DataError
from cskd_pipeline.labels.soft.layout import ABSENT, RANGE, SoftLayout

_CELLS = {"cpu": 1 << 18}  # logits at a time: about the size of a processor's cache
_CELLS_ELSEWHERE = 1 << 26
_MASS = float(1 << 32)  # masses are summed as integers in units of 2^-32, so the sum does not depend on how it is split


@dataclasses.dataclass(frozen=True, slots=True)
class _Leaders:
    """The k largest logits of N lists in descending order (ties by ascending class), and the sum of all others.

    Attributes:
        class_Nk: int64.
        logit_Nk: fp32, minus the largest of the list.
        rest_N: fp32, log of the sum of exp over all other logits, minus the largest of the list.
    """

    class_Nk: Tensor
    logit_Nk: Tensor
    rest_N: Tensor


def encode_rows(dense_BPC: Tensor, global_BC: Tensor, layout: SoftLayout) -> Tensor:
    """Rows uint8 [B, R] of `layout`.

    Raises:
        DataError: a logit is not finite.
    """
    crops = len(dense_BPC)
    shared = _leaders(global_BC.float(), layout.global_k)
    shared_BK = _within_range(shared)
    leaders = _leaders(dense_BPC.float().reshape(-1, layout.classes), layout.k)
    kept_BPk = _within_range(leaders).reshape(crops, layout.positions, layout.k)
    class_BPk = leaders.class_Nk.reshape(kept_BPk.shape)

    others_BC = _mass(leaders, layout, kept_BPk.reshape(-1, layout.k), class_BPk)
    # Classes of the global output are in the palette anyway.
    others_BC.scatter_(1, torch.where(shared_BK, shared.class_Nk, layout.classes), 0)
    slots_B = shared_BK.sum(1)
    other_BC = _heaviest(others_BC, layout.palette - slots_B)[:, : layout.classes]
    slot_BC = torch.full_like(others_BC, ABSENT, dtype=torch.int64)
    rank_BK = torch.arange(layout.global_k, device=slot_BC.device).expand_as(shared_BK)
    slot_BC.scatter_(1, torch.where(shared_BK, shared.class_Nk, layout.classes), rank_BK)
    crop, class_ = other_BC.nonzero(as_tuple=True)  # classes ascend within a crop
    others_B = other_BC.sum(1)
    rank = torch.arange(len(crop), device=crop.device) - (others_B.cumsum(0) - others_B)[crop]
    slot = slots_B[crop] + rank
    slot_BC[crop, class_] = slot
    slot_BC[:, layout.classes] = ABSENT

    palette_BL = torch.zeros(crops, layout.palette, dtype=torch.int64, device=slot_BC.device)
    palette_BL[:, : layout.global_k] = shared.class_Nk * shared_BK
    before = torch.where(rank > 0, class_.roll(1), -1)
    palette_BL[crop, slot] = class_ - before - 1
    tail_B, step_BK = _relative(shared, shared_BK, layout)
    slot_BPk = slot_BC.gather(1, class_BPk.reshape(crops, -1)).reshape(class_BPk.shape)
    slot_BPk = torch.where(kept_BPk, slot_BPk, ABSENT)
    kept_BPk = slot_BPk != ABSENT
    order = _gaps_last(kept_BPk)
    tail_N, step_Nk = _relative(leaders, kept_BPk.reshape(-1, layout.k), layout, order=order.reshape(-1, layout.k))

    columns = [
        slots_B[:, None],
        others_B[:, None],
        palette_BL & 255,
        palette_BL >> 8,
        tail_B[:, None],
        step_BK[:, 1:],
        tail_N.reshape(crops, -1),
        slot_BPk.gather(-1, order).transpose(1, 2).reshape(crops, -1),
        step_Nk.reshape(class_BPk.shape)[..., 1:].transpose(1, 2).reshape(crops, -1),
    ]
    return torch.cat([part.to(torch.uint8) for part in columns], 1)


def _leaders(logits_NC: Tensor, k: int) -> _Leaders:
    count, classes = logits_NC.shape
    cells = _CELLS.get(logits_NC.device.type, _CELLS_ELSEWHERE)
    rows = min(count, max(1, cells // classes))
    scratch = logits_NC.new_empty(rows, classes)
    parts = [_leaders_of(part, k, scratch=scratch[: len(part)]) for part in torch.split(logits_NC, rows)]
    if not all(bool(finite) for finite, _ in parts):
        raise DataError(
            "the teacher gave logits that are not finite; check its weights, or use fp32 for its forward pass"
        )
    return _Leaders(*(torch.cat(column) for column in zip(*(leaders for _, leaders in parts), strict=True)))


def _leaders_of(logits_NC: Tensor, k: int, *, scratch: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Whether all logits are finite, and the fields of their `_Leaders`."""
    low, high = logits_NC.aminmax()
    logit_Nk, class_Nk = logits_NC.topk(min(k + 1, logits_NC.shape[1]), dim=1)
    # topk takes any of equal logits, in any order; a stable sort takes the lowest class first.
    tied = (logit_Nk[:, 1:] == logit_Nk[:, :-1]).any(1).nonzero()[:, 0]
    class_Nk[tied] = logits_NC[tied].sort(dim=1, descending=True, stable=True).indices[:, : class_Nk.shape[1]]
    class_Nk, first_N1 = class_Nk[:, :k], logit_Nk[:, :1]
    mass_NC = torch.sub(logits_NC, first_N1, out=scratch).scatter_(1, class_Nk, -torch.inf).exp_()
    rest_N = (mass_NC.mul_(_MASS).round_().sum(1, dtype=torch.float64) / _MASS).log_().float()
    return low.isfinite() & high.isfinite(), (class_Nk, logit_Nk[:, :k] - first_N1, rest_N)


def _within_range(leaders: _Leaders) -> Tensor:
    return leaders.logit_Nk >= -RANGE


def _relative(
    leaders: _Leaders, kept_Nk: Tensor, layout: SoftLayout, *, order: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Codes of the tails [N] and of the classes [N, k]: steps below the previous one in `order`, 0 if not kept."""
    rest = torch.cat([leaders.rest_N[:, None], leaders.logit_Nk.masked_fill(kept_Nk, -torch.inf)], 1).logsumexp(1)
    logit_Nk = leaders.logit_Nk
    if order is not None:
        logit_Nk, kept_Nk = logit_Nk.gather(1, order), kept_Nk.gather(1, order)
    first_N1 = logit_Nk[:, :1]
    depth_Nk = ((first_N1 - logit_Nk).clamp(max=RANGE) / layout.step).round().masked_fill(~kept_Nk, 0)
    step_Nk = depth_Nk.diff(dim=1, prepend=torch.zeros_like(first_N1)) * kept_Nk
    tail_N = ((rest - first_N1[:, 0]) / layout.step).round().clamp(-layout.levels, layout.levels - 1)
    return torch.where(kept_Nk[:, 0], tail_N, 0) + layout.levels, step_Nk


def _gaps_last(kept_BPk: Tensor) -> Tensor:
    """The order of each position's list that moves classes without a slot to the end."""
    order = torch.arange(kept_BPk.shape[-1], device=kept_BPk.device).expand_as(kept_BPk)
    gaps = (kept_BPk[..., 1:] & ~kept_BPk[..., :-1]).any(-1).nonzero(as_tuple=True)
    sorted_ = (~kept_BPk[gaps]).to(torch.uint8).sort(dim=-1, stable=True).indices
    return order.index_put(gaps, sorted_)


def _mass(leaders: _Leaders, layout: SoftLayout, kept_Nk: Tensor, class_BPk: Tensor) -> Tensor:
    """int64 [B, C + 1] in units of 2^-32: mass of every class, summed over the positions that keep it."""
    crops = len(class_BPk)
    tail_N, step_Nk = _relative(leaders, kept_Nk, layout)
    weight_Nk = (step_Nk.double().cumsum(1) * -layout.step).exp() * kept_Nk
    whole_N = weight_Nk.sum(1) + ((tail_N.double() - layout.levels) * layout.step).exp()
    mass_Nk = (weight_Nk / whole_N[:, None] * _MASS).round().long().clamp(min=1) * kept_Nk
    mass_BC = torch.zeros(crops, layout.classes + 1, dtype=torch.int64, device=class_BPk.device)
    return mass_BC.scatter_add_(1, class_BPk.reshape(crops, -1), mass_Nk.reshape(crops, -1))


def _heaviest(mass_BC: Tensor, room_B: Tensor) -> Tensor:
    """bool [B, C]: the `room_B` classes of largest mass (ties by ascending class), without those of no mass."""
    taken_BC = mass_BC > 0
    crowded = (taken_BC.sum(1) > room_B).nonzero()[:, 0]
    order = mass_BC[crowded].sort(dim=1, descending=True, stable=True).indices
    rank = torch.arange(mass_BC.shape[1], device=mass_BC.device).expand_as(order)
    taken_BC[crowded] = torch.zeros_like(order, dtype=torch.bool).scatter(1, order, rank < room_B[crowded, None])
    return taken_BC
