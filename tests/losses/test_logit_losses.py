"""Losses of class logits against a second, slow implementation of each paper's equation; values and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cskd_pipeline.batch import MixedLabels, StudentOutput, Targets
from cskd_pipeline.errors import MismatchError, UsageError
from cskd_pipeline.labels import SoftEncoding, TruthEncoding
from cskd_pipeline.losses import densify, global_on_palette
from cskd_pipeline.objectives import create_objective

B, C, H, W = 6, 12, 2, 2
CPU = torch.device("cpu")


def normal(*shape: int, seed: int, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TEACHER = normal(B, C, seed=1)
DENSE = TEACHER[:, :, None, None] + normal(B, C, H, W, seed=2, scale=0.3)
LABELS = MixedLabels(
    torch.tensor([0, 1, 2, 3, 4, 5]),
    torch.tensor([5, 4, 3, 2, 1, 0]),
    torch.tensor([1.0, 0.3, 0.5, 0.49, 0.9, 0.0]),
    smoothing=0.1,
)
HEAVIER = [0, 4, 2, 2, 4, 0]
NO_LABELS = MixedLabels(LABELS.first_B, LABELS.first_B, torch.ones(B))


def truth(z: Tensor) -> Tensor:
    return -(LABELS.probabilities_BC(C).double() * z.log_softmax(1)).sum(1)


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p.log() - q.log())).sum()


def kd(z: Tensor, g: Tensor, b: int, *, alpha: float, temperature: float) -> Tensor:
    return alpha * temperature**2 * kl((g[b] / temperature).softmax(0), (z[b] / temperature).softmax(0))


def kd_standardised(z: Tensor, g: Tensor, b: int) -> Tensor:
    z, g = ((x[b] - x[b].mean()) / x[b].std(correction=0) for x in (z, g))
    return 0.5 * 4 * kl((g / 2).softmax(0), (z / 2).softmax(0))


def nkd(z: Tensor, g: Tensor, b: int, *, gamma: float, temperature: float) -> Tensor:
    y, others = HEAVIER[b], [c for c in range(C) if c != HEAVIER[b]]
    q_t, q_s = ((x[b, others] / temperature).softmax(0) for x in (g, z))
    target = -g[b].softmax(0)[y] * z[b].softmax(0)[y].log()
    return target - gamma * temperature**2 * (q_t * q_s.log()).sum()


def dkd(z: Tensor, g: Tensor, b: int, *, alpha: float, beta: float, temperature: float) -> Tensor:
    y, others = HEAVIER[b], [c for c in range(C) if c != HEAVIER[b]]
    p_t, p_s = ((x[b] / temperature).softmax(0) for x in (g, z))
    binary = kl(torch.stack([p_t[y], 1 - p_t[y]]), torch.stack([p_s[y], 1 - p_s[y]]))
    among = kl(p_t[others] / (1 - p_t[y]), p_s[others] / (1 - p_s[y]))
    return temperature**2 * (alpha * binary + beta * among)


def wttm(z: Tensor, g: Tensor, b: int, *, beta: float, gamma: float) -> Tensor:
    powers = g[b].softmax(0) ** gamma
    return beta * powers.sum() * kl(powers / powers.sum(), z[b].softmax(0))


def pearson(x: Tensor, y: Tensor) -> Tensor:
    return torch.corrcoef(torch.stack([x, y]))[0, 1]


def dist(z: Tensor, g: Tensor, b: int, *, temperature: float) -> Tensor:
    p_s, p_t = (z / temperature).softmax(1), (g / temperature).softmax(1)
    batch = torch.stack([pearson(p_s[:, c], p_t[:, c]) for c in range(C)]).mean()
    return temperature**2 * (1 - pearson(p_s[b], p_t[b]) + 2 * (1 - batch))


CASES: dict[str, tuple[str, dict[str, float | bool], float, Callable[[Tensor, Tensor, int], Tensor]]] = {
    "kd": ("kd", {}, 0.5, lambda z, g, b: kd(z, g, b, alpha=0.5, temperature=1)),
    "kd, from the teacher alone, softer": (
        "kd",
        {"alpha": 1.0, "temperature": 3.0},
        0.0,
        lambda z, g, b: kd(z, g, b, alpha=1, temperature=3),
    ),
    "kd, standardised": ("kd", {"standardise": True, "temperature": 2.0}, 0.5, kd_standardised),
    "nkd": ("nkd", {}, 1.0, lambda z, g, b: nkd(z, g, b, gamma=1, temperature=1)),
    "nkd, softer": (
        "nkd",
        {"gamma": 1.5, "temperature": 2.0},
        1.0,
        lambda z, g, b: nkd(z, g, b, gamma=1.5, temperature=2),
    ),
    "wttm": ("wttm", {"beta": 2.0, "gamma": 0.3}, 1.0, lambda z, g, b: wttm(z, g, b, beta=2, gamma=0.3)),
    "dist": ("dist", {"gamma": 2.0, "temperature": 2.0}, 1.0, lambda z, g, b: dist(z, g, b, temperature=2)),
    "dkd": ("dkd", {}, 1.0, lambda z, g, b: dkd(z, g, b, alpha=1, beta=0.5, temperature=1)),
    "dkd, softer": (
        "dkd",
        {"alpha": 2.0, "beta": 8.0, "temperature": 4.0},
        1.0,
        lambda z, g, b: dkd(z, g, b, alpha=2, beta=8, temperature=4),
    ),
}


def stored(*, k: int = C) -> Targets:
    """What a store with `soft` and `truth` gives."""
    soft = SoftEncoding(positions=H * W, classes=C, k=k, global_k=k, bits=7)
    dense_BPC = DENSE.flatten(2).transpose(1, 2)
    targets = soft.targets(soft.encode(dense_BPC, TEACHER).rows, grid=(H, W), ratio_steps=0, device=CPU)
    truths = TruthEncoding(positions=H * W, classes=C)
    rows = truths.encode(dense_BPC, TEACHER, torch.stack([LABELS.first_B, LABELS.second_B], 1)).rows
    odds = truths.targets(rows, grid=(H, W), ratio_steps=0, device=CPU)
    return targets._replace(label_odds_B2=odds.label_odds_B2)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_loss_is_the_papers_equation(
    case: tuple[str, dict[str, float | bool], float, Callable[[Tensor, Tensor, int], Tensor]],
) -> None:
    name, settings, weight, by_hand = case
    objective = create_objective(name, **settings)
    z = normal(B, C, seed=3).requires_grad_()
    found = objective(StudentOutput(z), LABELS, Targets(0, logits_global_BC=TEACHER))
    (slope,) = torch.autograd.grad(found.sum(), z)
    again = z.detach().double().requires_grad_()
    expected = weight * truth(again) + torch.stack([by_hand(again, TEACHER.double(), b) for b in range(B)])
    (expected_slope,) = torch.autograd.grad(expected.sum(), again)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(slope.double(), expected_slope, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["kd", "nkd", "wttm", "dist", "dkd"])
def test_sparse_targets_train_as_the_distribution_they_stand_for(name: str) -> None:
    objective, sparse = create_objective(name), stored(k=4)
    assert sparse.sparse is not None
    whole = densify(global_on_palette(sparse.sparse), classes=C)[:, :, 0].float()
    slopes = []
    for targets in (sparse, Targets(0, logits_global_BC=whole) if "truth" not in objective.needs else sparse):
        z = normal(B, C, seed=3).requires_grad_()
        slopes += torch.autograd.grad(objective(StudentOutput(z), LABELS, targets).sum(), z)
    torch.testing.assert_close(slopes[0], slopes[1])


@pytest.mark.parametrize("name", ["kd", "nkd", "wttm", "dist", "dkd"])
def test_sparse_targets_that_keep_every_class_train_like_the_logits(name: str) -> None:
    objective = create_objective(name)
    slopes = []
    for targets in (stored(), Targets(0, logits_global_BC=TEACHER)):
        z = normal(B, C, seed=3).requires_grad_()
        slopes += torch.autograd.grad(objective(StudentOutput(z), LABELS, targets).sum(), z)
    torch.testing.assert_close(slopes[0], slopes[1], atol=2e-2, rtol=0)  # 7 bits a logarithm


@pytest.mark.parametrize(("name", "settings"), [("nkd", {"gamma": 0.0}), ("dkd", {"beta": 0.0})])
def test_a_true_class_that_soft_targets_do_not_name_has_its_own_probability(
    name: str, settings: dict[str, float]
) -> None:
    objective, sparse, z = create_objective(name, **settings), stored(k=2), normal(B, C, seed=3)
    exact = objective(StudentOutput(z), LABELS, Targets(0, logits_global_BC=TEACHER))
    torch.testing.assert_close(objective(StudentOutput(z), LABELS, sparse), exact, atol=1e-3, rtol=0)
    with pytest.raises(MismatchError, match="no probabilities of the true classes"):
        objective(StudentOutput(z), LABELS, sparse._replace(label_odds_B2=None))


@pytest.mark.parametrize("name", ["kd", "nkd", "wttm", "dist", "dkd"])
def test_the_distilled_head_can_be_chosen(name: str) -> None:
    cls, second = normal(B, C, seed=3), normal(B, C, seed=4)
    targets = Targets(0, logits_global_BC=TEACHER)
    both, alone = StudentOutput(cls, second), StudentOutput(cls)
    by_head = {head: create_objective(name, head=head)(both, NO_LABELS, targets) for head in ("auto", "cls", "dist")}
    assert torch.equal(by_head["auto"], by_head["dist"])
    assert not torch.equal(by_head["auto"], by_head["cls"])
    assert torch.equal(
        create_objective(name)(alone, NO_LABELS, targets), create_objective(name, head="cls")(alone, NO_LABELS, targets)
    )
    with pytest.raises(UsageError, match="gives no dist_BC"):
        create_objective(name, head="dist")(alone, NO_LABELS, targets)


def test_extreme_logits_give_finite_gradients() -> None:
    z = torch.tensor([[1e4, 0.0, -1e4], [-1e4, 0.0, 1e4]]).requires_grad_()
    g = torch.tensor([[100.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    labels = MixedLabels(torch.tensor([0, 1]), torch.tensor([0, 1]), torch.ones(2))
    for name in ("kd", "nkd", "wttm", "dist", "dkd"):
        loss = create_objective(name)(StudentOutput(z), labels, Targets(0, logits_global_BC=g)).sum()
        assert bool(torch.autograd.grad(loss, z)[0].isfinite().all()), name
