"""The hard target of every schedule at once: which class wins at which ratio.

At one grid position class c scores t[c](r) = r*d[c] + (1-r)*g[c] (CSKD, ICCV 2023, eq. 5): a line in r. A schedule's
r is a multiple of 1/65536, so the hard target is a step function of k = 65536*r. `envelope` returns that function
exactly as fp32 arithmetic defines it: for each of the 65,537 ratios the winner equals
argmax over ALL classes of fp32(fp32(r*d) + fp32((1-r)*g)), ties to the lowest class.

Why this needs few evaluations. With u = 2^-24 and M the largest magnitude among the logits of the position, the
computed score differs from the real one by less than E = (2u + u^2) M. So a class that is ahead of all others by
more than 2E in real arithmetic also wins in fp32. A lead is linear in r: if one class leads by more than 2E at both
ends of an interval it does so inside, and nothing inside needs a look. Any other interval is split, first where the
lines of its two end winners cross, and in the end down to neighbouring ratios, each evaluated as written above.
Classes with the very same line as the winner tie with it everywhere and lose by their higher number.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from cskd_pipeline.labels.hard_records import TINIEST, TOLERANCE, not_finite
from cskd_pipeline.ratio import RATIO_STEPS, fused

_CELLS = 1 << 24  # scores evaluated at a time; bounds memory


@dataclasses.dataclass(frozen=True, slots=True)
class Segments:
    """Step functions of N positions, one after another.

    Attributes:
        position_M: int64, which position a segment belongs to, ascending.
        start_M: int64, the first k of the segment; 0 for the first segment of each position, then ascending.
        winner_M: int64, the class that wins from there on.
    """

    position_M: Tensor
    start_M: Tensor
    winner_M: Tensor


def envelope(dense_NC: Tensor, global_NC: Tensor) -> Segments:
    """The winners of N positions for every ratio, see the module's text.

    Args:
        dense_NC: fp32 logits of the positions.
        global_NC: fp32 global logits that belong to each position.

    Raises:
        DataError: a logit is not finite.
    """
    largest_N = torch.stack([x.abs() for logits in (dense_NC, global_NC) for x in logits.aminmax(dim=1)]).amax(0)
    if not bool(torch.isfinite(largest_N).all()):
        raise not_finite()
    tolerance_N = largest_N.double() * TOLERANCE + TINIEST
    candidate_NC = _candidates(dense_NC, global_NC, tolerance_N)
    count_N = torch.count_nonzero(candidate_NC, dim=1)
    points = [_lone_winners(candidate_NC, count_N)]
    width = 2
    while width < 2 * dense_NC.shape[1]:  # positions with alike many candidates share a compact table
        chosen = torch.nonzero((count_N > (width // 2 if width > 2 else 1)) & (count_N <= width)).flatten()
        for part in torch.split(chosen, max(1, _CELLS // width)):
            points.append(_Position.compact(dense_NC, global_NC, candidate_NC, tolerance_N, part, width).walk())
        width *= 2
    position, k, winner = (torch.cat(column) for column in zip(*points, strict=True))
    order = torch.argsort(position * (RATIO_STEPS + 1) + k)
    position, k, winner = position[order], k[order], winner[order]
    first = torch.ones_like(position, dtype=torch.bool)
    first[1:] = (position[1:] != position[:-1]) | (winner[1:] != winner[:-1])
    return Segments(position[first], k[first], winner[first])


def _candidates(dense_NC: Tensor, global_NC: Tensor, tolerance_N: Tensor) -> Tensor:
    """bool [N, C]: classes that can win somewhere.

    A class that is behind some one class by more than the tolerance at r = 0 and at r = 1 is so everywhere. The
    winners at the two ends serve as that class.
    """
    # fp32 differences are off by less than 1 part in 2^24: the doubled bound keeps the verdict on the safe side.
    bound_N1 = (2 * tolerance_N).float()[:, None]
    candidate_NC = torch.zeros_like(dense_NC, dtype=torch.bool)
    for turn, best_N1 in enumerate((global_NC.argmax(1, keepdim=True), dense_NC.argmax(1, keepdim=True))):
        not_behind = dense_NC >= dense_NC.gather(1, best_N1) - bound_N1
        not_behind |= global_NC >= global_NC.gather(1, best_N1) - bound_N1
        candidate_NC = candidate_NC & not_behind if turn else not_behind
    return candidate_NC


def _lone_winners(candidate_NC: Tensor, count_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    position = torch.nonzero(count_N == 1).flatten()
    winner = candidate_NC[position].to(torch.uint8).argmax(1)
    return position, torch.zeros_like(position), winner


@dataclasses.dataclass(frozen=True, slots=True)
class _Position:
    """Positions with at most K candidates each, in compact columns that keep the order of the classes.

    Columns beyond a position's candidates repeat its last one: the same line twice changes no winner.
    """

    position_n: Tensor
    class_nK: Tensor
    dense_nK: Tensor
    global_nK: Tensor
    tolerance_n: Tensor

    @classmethod
    def compact(
        cls,
        dense_NC: Tensor,
        global_NC: Tensor,
        candidate_NC: Tensor,
        tolerance_N: Tensor,
        part: Tensor,
        width: int,
    ) -> _Position:
        chosen = candidate_NC[part]
        rank = chosen.cumsum(1) - 1
        class_nK = torch.zeros(len(part), width, dtype=torch.int64, device=part.device)
        row, column = torch.nonzero(chosen, as_tuple=True)
        class_nK[row, rank[row, column]] = column
        last = rank[:, -1:]
        filler = class_nK.gather(1, last)
        beyond = torch.arange(width, device=part.device)[None] > last
        class_nK = torch.where(beyond, filler, class_nK)
        rows = part[:, None]
        return cls(part, class_nK, dense_NC[rows, class_nK], global_NC[rows, class_nK], tolerance_N[part])

    def winner_at(self, row: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Columns that win in fp32 at ratios k of these rows, and whether they lead by more than the tolerance."""
        dense, global_ = self.dense_nK[row], self.global_nK[row]
        best = fused(dense, global_, k[:, None]).argmax(1, keepdim=True)
        dense_best, global_best = dense.gather(1, best), global_.gather(1, best)
        r = k[:, None].double() / RATIO_STEPS
        lead = (dense_best.double() - dense.double()) * r + (global_best.double() - global_.double()) * (1 - r)
        same_line = (dense == dense_best) & (global_ == global_best)
        smallest = lead.masked_fill(same_line, torch.inf).amin(1)
        return best.squeeze(1), smallest > self.tolerance_n[row]

    def crossing(self, row: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """k (not rounded, may lie outside or be infinite) where the lines of two columns meet."""
        dense, global_ = self.dense_nK[row].double(), self.global_nK[row].double()

        def line(column: Tensor) -> tuple[Tensor, Tensor]:
            at = column[:, None]
            return dense.gather(1, at).squeeze(1), global_.gather(1, at).squeeze(1)

        (d0, g0), (d1, g1) = line(left), line(right)
        rise = (d1 - g1) - (d0 - g0)
        return torch.nan_to_num((g0 - g1) / rise * RATIO_STEPS, nan=-1.0, posinf=-1.0, neginf=-1.0)

    def walk(self) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluated points (position, k, winning class) that pin down the step function of each position."""
        row = torch.arange(len(self.position_n), device=self.position_n.device)
        k0, k1 = torch.zeros_like(row), torch.full_like(row, RATIO_STEPS)
        (w0, safe0), (w1, safe1) = self.winner_at(row, k0), self.winner_at(row, k1)
        seen = [(row, k0, w0), (row, k1, w1)]
        by_crossing = True
        while True:
            open_ = (k1 - k0 > 1) & ~((w0 == w1) & safe0 & safe1)
            row, k0, w0, safe0, k1, w1, safe1 = (x[open_] for x in (row, k0, w0, safe0, k1, w1, safe1))
            if len(row) == 0:
                break
            middle = (k0 + k1) // 2
            if by_crossing:  # every other round halves, so that rounds are bounded whatever the lines are
                cross = self.crossing(row, w0, w1).floor().clamp(-1, RATIO_STEPS + 1).long()
                middle = torch.where((w0 != w1) & (cross >= k0) & (cross < k1), cross, middle)
            by_crossing = not by_crossing
            m0 = middle.clamp(min=k0 + 1).minimum(k1 - 1)
            m1 = (m0 + 1).minimum(k1 - 1)
            (v0, held0), (v1, held1) = self.winner_at(row, m0), self.winner_at(row, m1)
            seen += [(row, m0, v0), (row, m1, v1)]
            row = torch.cat([row, row])
            k0, w0, safe0, k1, w1, safe1 = (
                torch.cat(pair) for pair in ((k0, m1), (w0, v1), (safe0, held1), (m0, k1), (v0, w1), (held0, safe1))
            )
        rows, ks, columns = (torch.cat(column) for column in zip(*seen, strict=True))
        return self.position_n[rows], ks, self.class_nK[rows, columns]
