"""Losses on sparse targets equal the dense computation on the distributions that the targets stand for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cskd_pipeline.batch import SparseTargets
from cskd_pipeline.labels import SoftEncoding
from cskd_pipeline.losses import (
    densify,
    fuse,
    global_on_palette,
    normalized,
    on_palette,
    soft_dense,
    soft_global,
    sparse_dense,
    sparse_global,
)
from cskd_pipeline.ratio import RATIO_STEPS

B, H, W = 3, 2, 3
STEPS = (0, 20000, RATIO_STEPS)


def normal(*shape: int, seed: int) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sparse(classes: int, **settings: int) -> SparseTargets:
    """Of a teacher whose positions agree in part; the last position of the last crop is all but certain."""
    dense = normal(B, H * W, classes, seed=1) + normal(B, 1, classes, seed=2)
    dense[-1, -1] *= 20
    encoding = SoftEncoding(positions=H * W, classes=classes, **settings)
    rows = encoding.encode(dense, dense.mean(1)).rows
    found = encoding.targets(rows, grid=(H, W), ratio_steps=0, device=torch.device("cpu")).sparse
    assert found is not None
    return found


def dense_logs(targets: SparseTargets, steps: int) -> Tensor:
    """float64 [B, C, H, W], fused from the two distributions and not by `on_palette`."""
    g = densify(global_on_palette(targets), classes=targets.classes)[:, :, 0]
    d = densify(on_palette(targets, ratio_steps=RATIO_STEPS), classes=targets.classes)
    return steps / RATIO_STEPS * d.unflatten(2, (H, W)) + (1 - steps / RATIO_STEPS) * g[:, :, None, None]


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL over axis 1 in float64."""
    p, q = (teacher / temperature).softmax(1), (student.double() / temperature).log_softmax(1)
    return temperature**2 * (torch.special.xlogy(p, p) - p * q).sum(1)


def gradient(loss: Callable[[Tensor], Tensor], student: Tensor) -> tuple[Tensor, Tensor]:
    """Values and the gradient of their weighted sum."""
    student = student.clone().requires_grad_()
    value = loss(student)
    weight = torch.linspace(0.5, 2, len(value), dtype=value.dtype)
    (value * weight).sum().backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    return value.detach(), student.grad


CASES = [
    (2, {}),
    (10, {}),
    (10, {"k": 2, "global_k": 3, "palette": 4}),
    (40, {}),  # the palette holds every class
    (200, {"palette": 60}),
    (1, {"global_k": 1}),
]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(("classes", "settings"), CASES)
def test_the_dense_loss_and_its_gradient_are_those_of_the_dense_computation(
    classes: int, settings: dict[str, int], steps: int, temperature: float
) -> None:
    targets = sparse(classes, **settings)
    student = normal(B, classes, H, W, seed=3)
    teacher = dense_logs(targets, steps)
    value, slope = gradient(lambda z: sparse_dense(z, targets, ratio_steps=steps, temperature=temperature), student)
    expected, expected_slope = gradient(lambda z: divergence(z, teacher, temperature).sum((1, 2)), student)
    assert value.dtype == torch.float32 and value.shape == (B,)
    torch.testing.assert_close(value.double(), expected, atol=2e-4 * temperature**2, rtol=1e-5)
    torch.testing.assert_close(slope, expected_slope, atol=2e-6 * temperature, rtol=1e-5)
    torch.testing.assert_close(
        value, soft_dense(student, teacher.float(), temperature=temperature), atol=3e-3, rtol=1e-4
    )


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("classes", "settings"), CASES)
def test_the_global_loss_and_its_gradient_are_those_of_the_dense_computation(
    classes: int, settings: dict[str, int], temperature: float
) -> None:
    targets = sparse(classes, **settings)
    student = normal(B, classes, seed=3)
    g = densify(global_on_palette(targets), classes=classes)[:, :, 0]
    value, slope = gradient(lambda z: sparse_global(z, targets, temperature=temperature), student)
    expected, expected_slope = gradient(lambda z: divergence(z, g, temperature) / classes, student)
    torch.testing.assert_close(value.double(), expected, atol=1e-5 * temperature**2, rtol=1e-5)
    torch.testing.assert_close(slope, expected_slope, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(value, soft_global(student, g.float(), temperature=temperature), atol=1e-3, rtol=1e-4)


def test_students_in_bfloat16_are_computed_in_fp32() -> None:
    targets = sparse(200)
    student = normal(B, 200, H, W, seed=3).bfloat16()
    value, slope = gradient(lambda z: sparse_dense(z, targets, ratio_steps=20000, temperature=2.0), student)
    full, full_slope = gradient(lambda z: sparse_dense(z, targets, ratio_steps=20000, temperature=2.0), student.float())
    assert value.dtype == torch.float32 and slope.dtype == torch.bfloat16
    torch.testing.assert_close(value, full)
    torch.testing.assert_close(slope, full_slope.bfloat16())


def test_a_student_that_agrees_has_no_loss_and_no_slope() -> None:
    targets = sparse(200)
    student = dense_logs(targets, 20000).float()
    value, slope = gradient(lambda z: sparse_dense(z, targets, ratio_steps=20000, temperature=1.0), student)
    torch.testing.assert_close(value, torch.zeros(B), atol=1e-4, rtol=0)
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-6, rtol=0)


def test_fused_targets_are_the_fusion_of_the_dense_ones() -> None:
    targets = sparse(200)
    g = densify(global_on_palette(targets), classes=200)[:, :, 0]
    d = densify(on_palette(targets, ratio_steps=RATIO_STEPS), classes=200).unflatten(2, (H, W))
    expected = fuse(d.float(), g.float(), ratio_steps=20000).double().log_softmax(1)
    found = densify(on_palette(targets, ratio_steps=20000), classes=200).unflatten(2, (H, W))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_examples_are_judged_by_themselves() -> None:
    targets = sparse(50)
    one = SparseTargets(*(x[1:2] if isinstance(x, Tensor) else x for x in targets))
    student = normal(B, 50, H, W, seed=3)
    whole = sparse_dense(student, targets, ratio_steps=9, temperature=1.0)
    torch.testing.assert_close(sparse_dense(student[1:2], one, ratio_steps=9, temperature=1.0), whole[1:2])


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_normalized_distillation_is_the_published_formula(classes: int, temperature: float) -> None:
    student, teacher, labels = normal(B, classes, seed=4), normal(B, classes, seed=5), torch.tensor([0, 1, 1])

    def by_hand(z: Tensor) -> Tensor:
        losses = []
        for logits, t, y in zip(z.double(), teacher.double(), labels.tolist(), strict=True):
            others = [c for c in range(classes) if c != y]
            q_t, q_s = (t[others] / temperature).softmax(0), (logits[others] / temperature).softmax(0)
            target = -t.softmax(0)[y] * logits.softmax(0)[y].log()
            losses.append(target - 1.5 * temperature**2 * (q_t * q_s.log()).sum())
        return torch.stack(losses)

    value, slope = gradient(lambda z: normalized(z, teacher, labels, gamma=1.5, temperature=temperature), student)
    expected, expected_slope = gradient(by_hand, student)
    torch.testing.assert_close(value.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(slope, expected_slope, atol=1e-5, rtol=1e-5)
