"""Every loss against a second implementation: Python loops over floats, following the equations letter by letter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cskd_pipeline.batch import Targets
from cskd_pipeline.errors import MismatchError, UsageError
from cskd_pipeline.losses import (
    fuse,
    hard_dense,
    hard_global,
    harden,
    soft_dense,
    soft_global,
    soft_target_cross_entropy,
)
from cskd_pipeline.ratio import RATIO_STEPS

B, C, H, W = 3, 5, 2, 3


def logits(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


def softmax(values: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(value / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def divergence(teacher: list[float], student: list[float], temperature: float) -> float:
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    return temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def close(found: Tensor, expected: list[float]) -> None:
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def positions() -> list[tuple[int, int]]:
    return [(h, w) for h in range(H) for w in range(W)]


def test_soft_target_cross_entropy_is_the_formula() -> None:
    z, p = logits(B, C, seed=1), logits(B, C, seed=2).softmax(1)
    expected = [-sum(p[b, c].item() * math.log(softmax(z[b].tolist())[c]) for c in range(C)) for b in range(B)]
    close(soft_target_cross_entropy(z, p), expected)


def test_hard_global_is_the_formula() -> None:
    z, y = logits(B, C, seed=1), torch.tensor([0, 4, 2])
    close(hard_global(z, y), [-math.log(softmax(z[b].tolist())[y[b]]) for b in range(B)])


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_global_is_the_formula_with_the_divisor_of_the_code(temperature: float) -> None:
    z, g = logits(B, C, seed=1), logits(B, C, seed=2)
    expected = [divergence(g[b].tolist(), z[b].tolist(), temperature) / C for b in range(B)]
    close(soft_global(z, g, temperature=temperature), expected)


def test_hard_dense_is_the_mean_over_positions() -> None:
    z, t = logits(B, C, H, W, seed=1), torch.arange(B * H * W).reshape(B, H, W) % C
    expected = [
        sum(-math.log(softmax(z[b, :, h, w].tolist())[t[b, h, w]]) for h, w in positions()) / (H * W) for b in range(B)
    ]
    close(hard_dense(z, t), expected)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_soft_dense_is_the_sum_over_positions(temperature: float) -> None:
    z, t = logits(B, C, H, W, seed=1), logits(B, C, H, W, seed=2)
    expected = [
        sum(divergence(t[b, :, h, w].tolist(), z[b, :, h, w].tolist(), temperature) for h, w in positions())
        for b in range(B)
    ]
    close(soft_dense(z, t, temperature=temperature), expected)


def test_losses_are_fp32_inside_whatever_the_dtype_of_the_logits() -> None:
    z, g = logits(B, C, seed=1).bfloat16(), logits(B, C, seed=2)
    assert torch.equal(soft_global(z, g, temperature=1.0), soft_global(z.float(), g, temperature=1.0))
    assert torch.equal(soft_target_cross_entropy(z, g.softmax(1)), soft_target_cross_entropy(z.float(), g.softmax(1)))


def test_teacher_logits_of_minus_infinity_stand_for_probability_zero() -> None:
    z, g = logits(1, C, seed=1), logits(1, C, seed=2)
    g[0, 3] = -math.inf
    p, q = softmax(g[0].tolist()), softmax(z[0].tolist())
    expected = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a) / C
    close(soft_global(z, g, temperature=1.0), [expected])


@pytest.mark.parametrize("steps", [0, 1, 21845, 40000, RATIO_STEPS])
def test_fusion_rounds_two_products_and_then_their_sum(steps: int) -> None:
    d, g = logits(B, C, H, W, seed=1), logits(B, C, seed=2)
    r = np.float32(steps / RATIO_STEPS)
    local = (d.numpy() * r).astype(np.float32)
    shared = (g.numpy() * (np.float32(1) - r)).astype(np.float32)
    expected = (local + shared[:, :, None, None]).astype(np.float32)
    assert np.array_equal(fuse(d, g, ratio_steps=steps).numpy(), expected)


@pytest.mark.parametrize(
    "steps, said", [(0.5, "a whole number, found 0.5"), (-1, "at least 0, found"), (65537, "at most 65536")]
)
def test_what_is_no_ratio_is_refused(steps: Any, said: str) -> None:
    with pytest.raises(UsageError, match=rf"ratio_steps \(r \* 65536\) of the schedule must be {said}"):
        fuse(torch.zeros(1, 3, 1, 1), torch.zeros(1, 3), ratio_steps=steps)


def test_hardened_ties_go_to_the_lowest_class() -> None:
    g = torch.tensor([[1.0, 2.0, 2.0]])
    d = torch.tensor([[0.0, 3.0, 3.0], [5.0, 5.0, 0.0]]).T.reshape(1, 3, 1, 2)
    hard = harden(Targets(ratio_steps=RATIO_STEPS, logits_global_BC=g, logits_dense_BCHW=d))
    assert hard.hard_global_B is not None and hard.hard_dense_BHW is not None
    assert hard.hard_global_B.tolist() == [1]
    assert hard.hard_dense_BHW.tolist() == [[[1, 0]]]


def test_hardening_is_the_argmax_of_the_fusion_and_keeps_what_is_there() -> None:
    d, g = logits(B, C, H, W, seed=1), logits(B, C, seed=2)
    given = torch.tensor([1, 1, 1])
    hard = harden(Targets(ratio_steps=30000, hard_global_B=given, logits_global_BC=g, logits_dense_BCHW=d))
    assert hard.hard_global_B is given
    r = 30000 / RATIO_STEPS
    for b in range(B):
        for h, w in positions():
            scores = [r * d[b, c, h, w].item() + (1 - r) * g[b, c].item() for c in range(C)]
            assert hard.hard_dense_BHW is not None
            assert hard.hard_dense_BHW[b, h, w] == scores.index(max(scores))


def test_hardening_without_logits_says_what_is_missing() -> None:
    with pytest.raises(MismatchError, match="neither hard classes nor logits"):
        harden(Targets(ratio_steps=0))
