"""A contract that every objective in the table keeps, and the combinations of their terms."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cskd_pipeline.batch import FeatureShape, MixedLabels, StudentOutput, Targets, TokenTargets
from cskd_pipeline.errors import MismatchError, UsageError
from cskd_pipeline.labels import SoftEncoding
from cskd_pipeline.losses import fuse, hard_dense, hard_global, soft_dense, soft_global, soft_target_cross_entropy
from cskd_pipeline.objectives import OBJECTIVES, Objective, create_objective, objective_to_json
from cskd_pipeline.ratio import RATIO_STEPS

B, C, H, W = 4, 6, 2, 2

N, D, WIDER = H * W, 3, 5
MODES: list[dict[str, Any]] = [{"mode": "hard"}, {"mode": "soft", "temperature": 2.0}]
# With all positions masked nothing is drawn.
SETTINGS = {"deit": MODES, "cskd": MODES, "vitkd": [{"mask": 1.0}, {"mask": 1.0, "nkd": True}]}
CASES = [create_objective(name, **settings) for name in OBJECTIVES for settings in SETTINGS.get(name, [{}])]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def output(objective: Objective | None = None) -> StudentOutput:
    if objective is not None and objective.teachers == 2:
        cls_BC, conv_BC, inv_BC = (normal(B, C, seed=seed).requires_grad_() for seed in (1, 2, 6))
        return StudentOutput(cls_BC, conv_BC=conv_BC, inv_BC=inv_BC)
    heads = normal(B, C, seed=1), normal(B, C, seed=2), normal(B, C, H, W, seed=3)
    layers = objective.layers if objective is not None else ()
    tokens = tuple(normal(B, N, D, seed=20 + layer).requires_grad_() for layer in range(len(layers)))
    return StudentOutput(*(head.requires_grad_() for head in heads), tokens=tokens or None)


def judge(objective: Objective, o: StudentOutput, y: MixedLabels, t: Targets | None) -> Tensor:
    """The objective's loss, with layers of its own if it has any."""
    with torch.random.fork_rng():
        torch.manual_seed(30)
        adapter = objective.adapter((N, D), FeatureShape(WIDER, WIDER, objective.layers, (H, W)))
    return objective(o, y, t) if adapter is None else objective(o, y, t, adapter)  # type: ignore[call-arg]


def taken(values: Any, rows: slice) -> Any:
    """A named tuple of tensors with these rows of each."""
    if isinstance(values, tuple):
        parts = [taken(value, rows) for value in values]
        return type(values)(*parts) if hasattr(values, "_fields") else tuple(parts)
    return values[rows] if isinstance(values, Tensor) else values


def labels() -> MixedLabels:
    weight_B = torch.tensor([1.0, 0.3, 0.5, 0.0])
    return MixedLabels(torch.tensor([0, 1, 2, 3]), torch.tensor([0, 5, 2, 4]), weight_B, smoothing=0.1)


def targets(*kinds: str, steps: int = 40000) -> Targets:
    g, d = normal(B, C, seed=4), normal(B, C, H, W, seed=5)
    hard = {"hard_global_B": g.argmax(1), "hard_dense_BHW": fuse(d, g, ratio_steps=steps).argmax(1)}
    soft = {"logits_global_BC": g, "logits_dense_BCHW": d}
    kept_Bn = torch.tensor([[0, 1, 3]]).expand(B, -1)
    features = {
        "pooled_BD": normal(B, WIDER, seed=8),
        "tokens": TokenTargets(normal(B, 3, 3, WIDER, seed=9), kept_Bn, N),
    }
    asked = {
        **(hard if "hard" in kinds else {}),
        **(soft if "soft" in kinds else {}),
        **(features if any(kind.startswith("features.") for kind in kinds) else {}),
    }
    return Targets(steps, **asked, second=Targets(steps, logits_global_BC=normal(B, C, seed=7)))


@pytest.mark.parametrize("objective", CASES, ids=str)
def test_every_objective_gives_one_finite_fp32_value_an_example(objective: Objective) -> None:
    loss_B = judge(objective, output(objective), labels(), targets(*objective.needs) if objective.needs else None)
    assert loss_B.shape == (B,) and loss_B.dtype == torch.float32
    assert bool(loss_B.isfinite().all())


@pytest.mark.parametrize("objective", CASES, ids=str)
def test_every_objective_reaches_every_head_that_it_claims_to_train(objective: Objective) -> None:
    heads = output(objective)
    judge(objective, heads, labels(), targets(*objective.needs)).sum().backward()  # type: ignore[no-untyped-call]
    for tokens_BND in heads.tokens or ():
        assert tokens_BND.grad is not None or tokens_BND is heads.tokens[-1]  # type: ignore[index]  # all is masked
    for logits in heads._replace(dense_BCHW=heads.dense_BCHW if objective.dense else None, tokens=None):
        assert logits is None or (logits.grad is not None and bool(logits.grad.abs().sum((1,)).all()))
    assert objective.dense or heads.dense_BCHW is None or heads.dense_BCHW.grad is None


@pytest.mark.parametrize("objective", [case for case in CASES if not case.whole_batch], ids=str)
def test_an_example_is_judged_by_itself(objective: Objective) -> None:
    o, y, t = output(objective), labels(), targets(*objective.needs)
    part, label, one = (taken(values, slice(1, 2)) for values in (o, y, t))
    torch.testing.assert_close(judge(objective, part, label, one), judge(objective, o, y, t)[1:2])


@pytest.mark.parametrize("objective", CASES, ids=str)
def test_every_objective_survives_json_and_prints_its_name(objective: Objective) -> None:
    written = json.loads(json.dumps(objective_to_json(objective)))
    assert written["name"] == objective.name and create_objective(**written) == objective


@pytest.mark.parametrize("objective", CASES, ids=str)
def test_every_schedule_stays_within_its_bounds(objective: Objective) -> None:
    steps = [objective.ratio_steps(epoch, 300) for epoch in range(300)]
    assert all(isinstance(step, int) and 0 <= step <= RATIO_STEPS for step in steps)
    assert steps == sorted(steps, reverse=True)


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        ("linear", lambda x: 1 - x),
        ("x2", lambda x: (1 - x) ** 2),
        ("cos", lambda x: math.cos(math.pi * x / 2)),
        ("local", lambda x: 1.0),
        ("global", lambda x: 0.0),
    ],
)
def test_schedules_are_the_published_formulas(schedule: str, formula: Any) -> None:
    objective = create_objective("cskd", schedule=schedule)
    for epoch in range(300):
        assert objective.ratio_steps(epoch, 300) / RATIO_STEPS == pytest.approx(formula(epoch / 300), abs=2**-17)


@pytest.mark.parametrize("name", ["deit", "cskd"])
def test_hard_targets_from_logits_give_the_loss_of_stored_hard_targets(name: str) -> None:
    objective = create_objective(name)
    stored = objective(output(), labels(), targets("hard"))
    assert torch.equal(stored, objective(output(), labels(), targets("soft")))


@pytest.mark.parametrize("name", ["deit", "cskd"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_sparse_targets_that_keep_every_class_train_like_the_logits(name: str, temperature: float) -> None:
    objective = create_objective(name, mode="soft", temperature=temperature)
    full = targets("soft")
    assert full.logits_global_BC is not None and full.logits_dense_BCHW is not None
    encoding = SoftEncoding(positions=H * W, classes=C, k=C, global_k=C, bits=7)
    rows = encoding.encode(full.logits_dense_BCHW.flatten(2).transpose(1, 2), full.logits_global_BC).rows
    sparse = encoding.targets(rows, grid=(H, W), ratio_steps=full.ratio_steps, device=torch.device("cpu"))
    losses, slopes = [], []
    for stored in (full, sparse):
        heads = output()
        losses.append(objective(heads, labels(), stored))
        losses[-1].sum().backward()  # type: ignore[no-untyped-call]
        slopes.append(heads.dense_BCHW.grad if objective.dense else heads.dist_BC.grad)  # type: ignore[union-attr]
    torch.testing.assert_close(losses[1], losses[0], atol=0.05, rtol=0.01)
    torch.testing.assert_close(slopes[1], slopes[0], atol=0.01, rtol=0.05)


@pytest.mark.parametrize("name", ["deit", "cskd"])
def test_soft_objectives_refuse_targets_without_soft_ones(name: str) -> None:
    with pytest.raises(MismatchError, match="neither logits nor sparse"):
        create_objective(name, mode="soft")(output(), labels(), targets("hard"))


@pytest.mark.parametrize("objective", [case for case in CASES if case.needs], ids=str)
def test_what_an_objective_needs_and_does_not_get_is_said(objective: Objective) -> None:
    with pytest.raises(UsageError, match="reads a teacher's targets, found None; give"):
        judge(objective, output(objective), labels(), None)
    heads = output(objective) if objective.teachers == 1 else output()
    if objective.teachers == 2:
        with pytest.raises(UsageError, match="gives no conv_BC"):
            objective(heads, labels(), targets("soft"))
        with pytest.raises(MismatchError, match="reads two teachers' targets, found one's"):
            objective(output(objective), labels(), targets("soft")._replace(second=None))
    if objective.second_head and not objective.layers:
        with pytest.raises(UsageError, match="gives no dist_BC"):
            objective(StudentOutput(heads.cls_BC, None, heads.dense_BCHW), labels(), targets("hard", "soft"))
    if objective.dense:
        with pytest.raises(UsageError, match="gives no dense_BCHW"):
            objective(StudentOutput(heads.cls_BC, heads.dist_BC), labels(), targets("hard", "soft"))


def test_cskd_adds_its_three_terms_with_their_weights() -> None:
    o, t = output(), targets("hard", "soft")
    assert o.dist_BC is not None and o.dense_BCHW is not None
    assert t.hard_global_B is not None and t.hard_dense_BHW is not None
    assert t.logits_global_BC is not None and t.logits_dense_BCHW is not None
    truth = soft_target_cross_entropy(o.cls_BC, labels().probabilities_BC(C))
    hard = 0.7 * truth + 0.3 * hard_global(o.dist_BC, t.hard_global_B) + 2 * hard_dense(o.dense_BCHW, t.hard_dense_BHW)
    torch.testing.assert_close(create_objective("cskd", alpha=0.3, weight=2.0)(o, labels(), t), hard)
    fused = fuse(t.logits_dense_BCHW, t.logits_global_BC, ratio_steps=t.ratio_steps)
    soft = (
        0.5 * truth
        + 0.5 * soft_global(o.dist_BC, t.logits_global_BC, temperature=2.0)
        + soft_dense(o.dense_BCHW, fused, temperature=2.0)
    )
    torch.testing.assert_close(create_objective("cskd", mode="soft", temperature=2.0)(o, labels(), t), soft)


def test_deit_is_cskd_without_the_dense_term() -> None:
    t = targets("hard")
    deit = create_objective("deit")(output(), labels(), t)
    torch.testing.assert_close(deit, create_objective("cskd", weight=0.0)(output(), labels(), t))


def test_supervised_is_the_mean_of_the_heads_that_there_are() -> None:
    o = output()
    assert o.dist_BC is not None
    probabilities = labels().probabilities_BC(C)
    cls, dist = (soft_target_cross_entropy(head, probabilities) for head in (o.cls_BC, o.dist_BC))
    supervised = create_objective("supervised")
    torch.testing.assert_close(supervised(o, labels(), None), (cls + dist) / 2)
    torch.testing.assert_close(supervised(StudentOutput(o.cls_BC), labels(), None), cls)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("cksd", {}, "did you mean 'cskd'"),
        ("cskd", {"mode": "sofd"}, "did you mean 'soft'"),
        ("cskd", {"schedule": "quadratic"}, "choose one of linear, x2, cos"),
        ("cskd", {"weigth": 1.0}, "did you mean 'weight'"),
        ("deit", {"alpha": 1.5}, "at most 1, found 1.5"),
        ("deit", {"temperature": 0}, "greater than 0, found 0"),
        ("supervised", {"alpha": 0.5}, "no field 'alpha'"),
    ],
)
def test_wrong_settings_are_refused_with_what_is_allowed(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_objective(name, **settings)
