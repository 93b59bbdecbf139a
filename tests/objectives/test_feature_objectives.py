"""Objectives on features against a second, slow implementation of each paper's equation; values and gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cskd_pipeline.batch import FeatureShape, MixedLabels, StudentOutput, Targets, TokenTargets
from cskd_pipeline.errors import MismatchError, UsageError
from cskd_pipeline.losses import draw_mask
from cskd_pipeline.objectives import create_objective

B, C, H, W, STUDENT, TEACHER = 3, 5, 3, 2, 4, 6
P = H * W
ALL = torch.arange(P).expand(B, -1)
SHAPE = FeatureShape(TEACHER, TEACHER, (0, 1, -1), (H, W))
LABELS = MixedLabels(torch.tensor([0, 1, 2]), torch.tensor([4, 3, 2]), torch.tensor([1.0, 0.3, 0.5]), smoothing=0.1)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def output(layers: int, *, dtype: torch.dtype = torch.float64) -> StudentOutput:
    cls_BC, dist_BC = (normal(B, C, seed=seed).to(dtype).requires_grad_() for seed in (1, 2))
    tokens = tuple(normal(B, P, STUDENT, seed=3 + layer).to(dtype).requires_grad_() for layer in range(layers))
    return StudentOutput(cls_BC, dist_BC, tokens=tokens)


def targets(kept_Bn: Tensor = ALL, *, dtype: torch.dtype = torch.float64) -> Targets:
    values_BLPD = normal(B, 3, P, TEACHER, seed=9).to(dtype)
    kept = values_BLPD.gather(2, kept_Bn[:, None, :, None].expand(-1, 3, -1, TEACHER))
    tokens = TokenTargets(kept, kept_Bn, P)
    logits_BC, pooled_BD = normal(B, C, seed=7).to(dtype), normal(B, TEACHER, seed=8).to(dtype)
    return Targets(0, logits_global_BC=logits_BC, pooled_BD=pooled_BD, tokens=tokens)


def made(name: str, **settings: Any) -> tuple[Any, Any]:
    """An objective and its layers, with random weights."""
    objective = create_objective(name, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        adapter = objective.adapter((P, STUDENT), SHAPE)
        assert adapter is not None
        for parameter in adapter.parameters():
            if not any(".parametrizations." in f".{n}" and p is parameter for n, p in adapter.named_parameters()):
                nn.init.normal_(parameter)
    return objective, adapter.double()


def cross_entropy(logits_BC: Tensor) -> Tensor:
    return -(LABELS.probabilities_BC(C).double() * logits_BC.log_softmax(1)).sum(1)


def grown(map_DHW: Tensor, conv: Any) -> Tensor:
    """A 3 x 3 convolution with padding, position by position."""
    out = torch.zeros(conv.out_channels, H, W, dtype=map_DHW.dtype)
    for row in range(H):
        for column in range(W):
            total = conv.bias.clone()
            for i in range(3):
                for j in range(3):
                    y, x = row + i - 1, column + j - 1
                    if 0 <= y < H and 0 <= x < W:
                        total = total + conv.weight[:, :, i, j] @ map_DHW[:, y, x]
            out[:, row, column] = total
    return out


def slow_vkd(o: StudentOutput, t: Targets, adapter: Any) -> Tensor:
    assert o.dist_BC is not None and o.tokens is not None
    assert t.logits_global_BC is not None and t.pooled_BD is not None
    losses = []
    for b in range(B):
        p, q = t.logits_global_BC[b].softmax(0), o.dist_BC[b].softmax(0)
        kl = sum(p[c] * (p[c].log() - q[c].log()) for c in range(C))
        projected = adapter.weight @ (sum(o.tokens[0][b, n] for n in range(P)) / P)
        f = t.pooled_BD[b]
        normed = (f - f.mean()) / (((f - f.mean()) ** 2).mean() + 1e-5).sqrt()
        differences = [projected[d] - normed[d] for d in range(TEACHER)]
        smooth = [0.5 * e**2 if abs(e) < 1 else abs(e) - 0.5 for e in differences]
        losses.append(kl + 0.7 * sum(smooth) / TEACHER)
    return cross_entropy(o.cls_BC) + torch.stack(losses)


def slow_vitkd(o: StudentOutput, t: Targets, adapter: Any, mask_BP: Tensor, *, share: float) -> Tensor:
    assert o.tokens is not None and t.tokens is not None
    losses = []
    for b in range(B):
        low = torch.zeros((), dtype=torch.float64)
        for layer in range(2):
            align = adapter.low[layer]
            for n in range(P):
                low = (
                    low
                    + (
                        (align.weight @ o.tokens[layer][b, n] + align.bias - t.tokens.values_BLnD[b, layer, n]) ** 2
                    ).sum()
                )
        shown = [
            adapter.mask_token[0, 0] if mask_BP[b, n] else adapter.high.weight @ o.tokens[2][b, n] + adapter.high.bias
            for n in range(P)
        ]
        first, _, second = adapter.generation
        generated = grown(grown(torch.stack(shown, 1).reshape(-1, H, W), first).clamp(min=0), second).reshape(-1, P)
        high = sum(((generated[:, n] - t.tokens.values_BLnD[b, 2, n]) ** 2).sum() for n in range(P) if mask_BP[b, n])
        losses.append(0.1 * low + 0.2 / share * high)
    assert o.dist_BC is not None
    return (cross_entropy(o.cls_BC) + cross_entropy(o.dist_BC)) / 2 + torch.stack(losses)


def gradients(loss_B: Tensor, o: StudentOutput, adapter: Any) -> list[Tensor]:
    assert o.tokens is not None and o.dist_BC is not None
    inputs = [o.cls_BC, o.dist_BC, *o.tokens, *adapter.parameters()]
    return list(torch.autograd.grad(loss_B.sum(), inputs, allow_unused=True, materialize_grads=True))


def test_vkd_is_its_equation() -> None:
    objective, adapter = made("vkd", weight=0.7)
    o, t = output(1), targets()
    found, expected = objective(o, LABELS, t, adapter), slow_vkd(o, t, adapter)
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-6)
    for one, other in zip(gradients(found, o, adapter), gradients(expected, o, adapter), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("share", [0.5, 0.6, 1.0])
def test_vitkd_is_its_equation(share: float) -> None:
    objective, adapter = made("vitkd", alpha=0.1, beta=0.2, mask=share)
    o, t = output(3), targets()
    torch.manual_seed(11)
    found = objective(o, LABELS, t, adapter)
    torch.manual_seed(11)
    masked = P - int(P * (1 - share))
    mask_BP, _ = draw_mask(ALL, positions=P, masked=masked)
    assert mask_BP.sum(1).tolist() == [masked] * B
    expected = slow_vitkd(o, t, adapter, mask_BP, share=share)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-6)
    for one, other in zip(gradients(found, o, adapter), gradients(expected, o, adapter), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-5)


def test_vitkd_with_nkd_adds_what_nkd_distils() -> None:
    losses = {}
    for nkd in (False, True):
        objective, adapter = made("vitkd", nkd=nkd, head="cls")
        torch.manual_seed(11)
        losses[nkd] = objective(output(3), LABELS, targets(), adapter)
    alone = create_objective("nkd", head="cls")(output(3), LABELS, targets())
    truth = create_objective("supervised")(output(3), LABELS, None)
    torch.testing.assert_close(losses[True] - losses[False], alone - truth, atol=1e-5, rtol=1e-5)


def random_positions(count: int, seed: int) -> Tensor:
    words_BP = torch.rand(B, P, generator=torch.Generator().manual_seed(seed))
    return words_BP.argsort(1)[:, :count].sort(1).values


@pytest.mark.parametrize("kept", [1, 2, 4, 5])
def test_some_positions_estimate_the_sums_over_all_without_bias(kept: int) -> None:
    """With fewer positions than are masked, with more, and with one."""
    objective, adapter = made("vitkd", alpha=0.1, beta=0.02)
    o = output(3)
    torch.manual_seed(12)
    whole, part = [], []
    for draw in range(1500):
        whole.append(objective(o, LABELS, targets(), adapter).detach())
        part.append(objective(o, LABELS, targets(random_positions(kept, draw)), adapter).detach())
    difference = torch.stack(part) - torch.stack(whole)
    error = difference.std(0) / math.sqrt(len(difference))
    assert bool((difference.mean(0).abs() < 4 * error).all())


@pytest.mark.parametrize("kept", [1, 3, 4, 6])
def test_every_mask_is_as_likely_as_any_other(kept: int) -> None:
    torch.manual_seed(13)
    drawn = 3000
    places = torch.rand(drawn, P).argsort(1)[:, :kept].sort(1).values
    mask_BP, known = draw_mask(places, positions=P, masked=3)
    assert known.shape == (drawn, min(kept, 3))
    assert bool(mask_BP.gather(1, known).all())
    assert bool((known[:, :, None] == places[:, None]).any(2).all())
    codes = (mask_BP.long() << torch.arange(P)).sum(1).unique(return_counts=True)[1]
    assert len(codes) == math.comb(P, 3)
    assert float((codes - drawn / len(codes)).abs().max()) < 5 * math.sqrt(drawn / len(codes))


@pytest.mark.parametrize(
    ("student", "teacher", "parameters"), [(192, 384, 2_877_696), (384, 768, 11_506_176), (768, 1024, 21_239_808)]
)
def test_vitkd_has_the_papers_parameters(student: int, teacher: int, parameters: int) -> None:
    with torch.device("meta"):
        adapter = create_objective("vitkd").adapter((196, student), FeatureShape(None, teacher, (0, 1, -1), (14, 14)))
    assert adapter is not None
    assert sum(parameter.numel() for parameter in adapter.parameters()) == parameters


def test_equal_widths_need_no_alignment() -> None:
    adapter: Any = create_objective("vitkd").adapter((P, TEACHER), SHAPE)
    assert isinstance(adapter.high, nn.Identity) and not list(adapter.low.parameters())


@pytest.mark.parametrize("width", [TEACHER - 2, TEACHER, TEACHER + 2])
def test_the_projection_stays_orthogonal_as_it_learns(width: int) -> None:
    objective = create_objective("vkd")
    adapter: Any = objective.adapter((P, width), SHAPE)
    start = adapter.weight.detach().clone()
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.1, weight_decay=0.0)
    for _ in range(5):
        optimizer.zero_grad()
        (adapter.weight - normal(TEACHER, width, seed=5).float()).square().sum().backward()
        optimizer.step()
    learned = adapter.weight.detach()
    assert (learned - start).abs().max() > 0.1
    small = min(TEACHER, width)
    gram = learned.T @ learned if width <= TEACHER else learned @ learned.T
    torch.testing.assert_close(gram, torch.eye(small), atol=1e-5, rtol=0)


def test_features_that_are_not_those_of_the_objective_are_refused() -> None:
    vitkd = create_objective("vitkd")
    with pytest.raises(MismatchError, match=r"are of blocks \[0, 2, -1\], objective vitkd reads \[0, 1, -1\]"):
        vitkd.adapter((P, 4), SHAPE._replace(layers=(0, 2, -1)))
    with pytest.raises(MismatchError, match="the student has 49 patch tokens, the teacher 6"):
        vitkd.adapter((49, 4), SHAPE)


@pytest.mark.parametrize("name", ["vkd", "vitkd"])
def test_what_is_missing_is_said(name: str) -> None:
    objective, adapter = made(name)
    layers = len(objective.layers)
    with pytest.raises(UsageError, match=r"call objective\(student\(pixels\), labels, targets, student.adapter\)"):
        objective(output(layers), LABELS, targets())
    with pytest.raises(UsageError, match=f"shows patch tokens of 2 blocks, the objective reads {layers}"):
        objective(output(2), LABELS, targets(), adapter)
    with pytest.raises(UsageError, match="shows patch tokens of 0 blocks"):
        objective(output(2)._replace(tokens=None), LABELS, targets(), adapter)
    with pytest.raises(MismatchError, match=r"the targets hold no features.*`features\."):
        objective(output(layers), LABELS, targets()._replace(pooled_BD=None, tokens=None), adapter)
    with pytest.raises(UsageError, match="reads a teacher's targets, found None"):
        objective(output(layers), LABELS, None, adapter)


def test_vitkd_takes_its_own_layers_alone() -> None:
    objective, _ = made("vitkd")
    with pytest.raises(UsageError, match="takes the adapter of a student made for it, found Linear"):
        objective(output(3), LABELS, targets(), nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("vitkd", {"mask": 0}, "mask must be greater than 0, found 0"),
        ("vitkd", {"mask": 1.5}, "mask must be at most 1, found 1.5"),
        ("vitkd", {"nkd": "yes"}, "nkd must be true or false, found 'yes'"),
        ("vkd", {"weight": -1}, "weight must be at least 0"),
    ],
)
def test_wrong_settings_are_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_objective(name, **settings)
