"""What an update does, what a run leaves behind, and how it ends when something is wrong."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from synthetic_training import CLASSES, CONFIG, TINY, Countdown, SyntheticSource, evaluation_batches, run, state_of
from torch import Tensor
from toys import STUDENT_ARGS

import cskd_pipeline as cskd
from cskd_pipeline.batch import TrainBatch
from cskd_pipeline.checkpoint import read_metadata, save_state
from cskd_pipeline.errors import DataError, RetryError, StoppedError, UsageError
from cskd_pipeline.evaluation import Score, evaluate
from cskd_pipeline.models.student import StudentSpec, create_student
from cskd_pipeline.objectives import create_objective
from cskd_pipeline.presets import PRESETS, find_preset
from cskd_pipeline.runtime.stopping import stop_on_signals
from cskd_pipeline.training.config import TrainConfig
from cskd_pipeline.training.learner import Learner
from cskd_pipeline.training.summary import Best, improved

CALM = dataclasses.replace(CONFIG, drop_path=0.0, accumulation=1)


def learner(config: TrainConfig) -> Learner:
    student = create_student("deit_ti", classes=CLASSES, grid=(2, 2), args=TINY)
    device = torch.device("cpu")
    return Learner(student, create_objective("cskd"), config, updates_per_epoch=3, device=device)


def batches(config: TrainConfig) -> list[TrainBatch]:
    return list(SyntheticSource(config).batches(0))


def gradients(learning: Learner) -> list[Tensor]:
    return [value.grad for value in learning.student.parameters() if value.grad is not None]


def mean_gradients(examples: list[TrainBatch]) -> list[Tensor]:
    """The gradient of the mean loss over all crops, the obvious way."""
    student = create_student("deit_ti", classes=CLASSES, grid=(2, 2), args=TINY)
    objective = create_objective("cskd")
    losses = torch.cat([objective(student(batch.pixels_B3SS), batch.labels, batch.targets) for batch in examples])
    return list(torch.autograd.grad(losses.mean(), list(student.parameters())))


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_accumulated_gradients_are_those_of_the_mean_over_the_global_batch(accumulation: int) -> None:
    config = dataclasses.replace(CALM, accumulation=accumulation)
    learning = learner(config)
    examples = batches(config)[:accumulation]
    loss_sum, count = learning.update(iter(examples), update=0)
    assert count == 8 and math.isfinite(loss_sum)
    torch.testing.assert_close(gradients(learning), mean_gradients(examples), rtol=1e-4, atol=1e-6)


def test_a_short_micro_batch_still_gives_the_mean_over_its_crops() -> None:
    config = dataclasses.replace(CALM, accumulation=2)
    short = batches(dataclasses.replace(CALM, batch_size=3))[0]
    examples = [batches(config)[0], short]
    learning = learner(config)
    assert learning.update(iter(examples), update=0)[1] == 4 + 3
    torch.testing.assert_close(gradients(learning), mean_gradients(examples), rtol=1e-4, atol=1e-6)


def test_the_average_of_weights_is_the_recursion() -> None:
    learning = learner(CALM)
    expected = {name: value.clone() for name, value in learning.student.state_dict().items()}
    for update, batch in enumerate(batches(CALM)):
        learning.update(iter([batch]), update=update)
        for name, value in learning.student.state_dict().items():
            expected[name] = 0.9 * expected[name] + 0.1 * value
    torch.testing.assert_close(dict(learning.models["ema"].state_dict()), expected)


def test_the_learning_rate_warms_up_by_update_and_ends_near_its_least() -> None:
    config = dataclasses.replace(CALM, epochs=10, warmup_epochs=2, lr=1e-2, min_lr=1e-4, warmup_lr=1e-3)
    learning = learner(config)
    rates = []
    for update in range(30):
        learning.update(iter(batches(config)), update=update)
        rates.append(learning.lr)
    assert rates[:6] == pytest.approx([1e-3 + step * 9e-3 / 6 for step in range(6)])
    cosine = [1e-4 + (1e-2 - 1e-4) * (1 + math.cos(math.pi * update / 30)) / 2 for update in range(6, 30)]
    assert rates[6:] == pytest.approx(cosine)


def test_only_matrices_are_decayed() -> None:
    groups = learner(CALM).state_dict()["optimizer"]["param_groups"]
    student = create_student("deit_ti", classes=CLASSES, args=TINY)
    matrices = [n for n, p in student.named_parameters() if p.ndim > 1 and not n.endswith(("_token", "pos_embed"))]
    decays = {group["weight_decay"]: len(group["params"]) for group in groups}
    assert decays == {0.05: len(matrices), 0.0: len(list(student.parameters())) - len(matrices)}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_learns_and_reports_it(precision: str, tmp_path: Path) -> None:
    config = dataclasses.replace(CALM, epochs=6, precision=precision)
    summary = run(tmp_path / "run", config)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    assert summary.best is not None and summary.best.head == "three_head"
    expected = max(row[f"{weights}/three_head/top1"] for row in rows for weights in ("model", "ema"))
    assert summary.best.top1 == expected > 100 / CLASSES
    assert state_of(tmp_path / "run")["model"]["model.pos_embed"].dtype == torch.float32


def test_timm_loads_the_best_model_and_it_has_the_recorded_score(tmp_path: Path) -> None:
    best = run(tmp_path / "run", CALM, objective=create_objective("deit")).best
    file = tmp_path / "run" / "best.safetensors"
    metadata = read_metadata(file)
    spec = StudentSpec.from_json(metadata["student"])
    assert best is not None and Best.from_json(metadata["best"]) == best and best.head == "two_head"
    model = timm.create_model(spec.model, num_classes=spec.classes, checkpoint_path=str(file), **spec.args).eval()
    hits = [model(pixels).argmax(1) == labels for pixels, labels in evaluation_batches()]
    assert 100 * torch.cat(hits).double().mean().item() == pytest.approx(best.top1)


def test_a_supervised_convolutional_network_trains_without_targets_or_average(tmp_path: Path) -> None:
    config = dataclasses.replace(CALM, epochs=2, ema_decay=0.0)
    student = create_student("resnet10t", classes=CLASSES)
    summary = run(tmp_path / "run", config, student=student, objective=create_objective("supervised"))
    assert summary.best is not None and summary.best.head == "cls" and summary.best.weights == "model"
    assert not (tmp_path / "run" / "ema.safetensors").exists()


def test_without_evaluation_there_is_no_best(tmp_path: Path) -> None:
    assert run(tmp_path / "run", CALM, evaluation=None).best is None
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_evaluation_comes_every_so_many_epochs_and_at_the_end(tmp_path: Path) -> None:
    run(tmp_path / "run", dataclasses.replace(CALM, epochs=5, eval_every=2))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows if "ema/cls/top1" in row] == [2, 4, 5]


def test_the_source_is_asked_for_full_updates_and_closed(tmp_path: Path) -> None:
    config = dataclasses.replace(CALM, accumulation=3, batch_size=9)
    asked = Countdown(1 << 30)
    source = SyntheticSource(config, spare=2, only=asked.kill)
    run(tmp_path / "run", config, source=source)
    assert (1 << 30) - asked.left == 3 * 3 * 3 and source.closed == 3
    assert source.asked == [(0, 0), (1, 0), (2, 0)]
    stopped = SyntheticSource(config)
    with pytest.raises(StoppedError):
        run(tmp_path / "stopped", config, source=stopped, stop=Countdown(1))
    assert stopped.closed == 1


class Poisoned(SyntheticSource):
    """A source whose pixels become infinite after a while."""

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[TrainBatch]:
        for batch in super().batches(epoch, start=start):
            pixels = batch.pixels_B3SS * (math.inf if epoch == 1 else 1)
            yield batch._replace(pixels_B3SS=pixels)


def test_a_loss_that_is_not_finite_says_where_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        run(tmp_path / "run", CALM, source=Poisoned(CALM))
    assert caught.value.exit_code == 3
    for part in (
        "epoch 2, update 1 of 3",
        "loss is nan (learning rate 0.00375)",
        "--clip-grad 1",
        "last.pt is from before",
    ):
        assert part in str(caught.value)
    state = state_of(tmp_path / "run")
    assert state["progress"]["epoch"] == 1
    assert all(bool(value.isfinite().all()) for value in state["model"].values())


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    student = create_student("deit_ti", classes=CLASSES, grid=(2, 2), args=TINY)
    # Only the last update's gradient is infinite, so every loss that was looked at is finite.
    updates = Countdown(2)
    student.model.head.bias.register_hook(lambda grad: grad * (math.inf if updates() else 1))
    with pytest.raises(DataError, match=r"weights model\.head\.bias are no longer finite"):
        run(tmp_path / "run", CALM, student=student)
    assert not (tmp_path / "run" / "last.pt").exists()
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_a_source_that_ends_early_is_reported(tmp_path: Path) -> None:
    source = SyntheticSource(CALM)
    source.batches_per_epoch += 1
    crops = list(SyntheticSource(CALM).batches(0))
    source.batches = lambda *args, **kwargs: iter(crops)  # type: ignore[method-assign]
    with pytest.raises(DataError, match="ended in update 4 of 4"):
        run(tmp_path / "run", CALM, source=source)


def test_a_full_disk_stops_the_run_with_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cskd_pipeline.training import run as saving

    saves = Countdown(1)

    def full(path: Path, state: Any) -> None:
        if saves():
            raise RetryError("no space left")
        save_state(path, state)

    monkeypatch.setattr(saving, "save_state", full)
    with pytest.raises(RetryError):
        run(tmp_path / "run", CALM)
    assert state_of(tmp_path / "run")["progress"]["epoch"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": dataclasses.replace(CALM, optimizer="adamwy")}, "did you mean 'adamw'"),
        ({"config": dataclasses.replace(CALM, optimizer="fusedadam")}, "cannot build the optimizer fusedadam here: "),
        ({"config": dataclasses.replace(CALM, optimizer="adahessian")}, "needs second derivatives"),
        ({"config": dataclasses.replace(CALM, accumulation=8), "source": SyntheticSource(CALM)}, "fewer than the acc"),
        ({"trackers": ("tensorbord",)}, "did you mean 'tensorboard'"),
        (
            {"student": create_student("deit_ti", classes=5, grid=(2, 2), args=TINY, drop_path=0.5)},
            "0.5 in the student",
        ),
    ],
)
def test_wrong_requests_fail_before_the_first_step(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = changes.pop("config", CALM)
    with pytest.raises(UsageError, match=message):
        run(tmp_path / "run", config, **changes)
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_every_row(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path / "run", CALM, trackers=("tensorboard",))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3]


def test_a_missing_tracker_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"cskd-pipeline\[wandb\]"):
        run(tmp_path / "run", CALM, trackers=("wandb",))


def test_a_run_keeps_its_wandb_identity_and_shares_it_with_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FakeRun:
        def log(self, row: Any, step: int) -> None: ...
        def finish(self) -> None: ...

    identities: list[str] = []

    def init(**settings: Any) -> FakeRun:
        identities.append(settings["id"])
        return FakeRun()

    fake = types.ModuleType("wandb")
    fake.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with pytest.raises(StoppedError):
        run(tmp_path / "a" / "run", CALM, trackers=("wandb",), stop=Countdown(1))
    run(tmp_path / "a" / "run", CALM, trackers=("wandb",), resume=True)
    run(tmp_path / "b" / "run", CALM, trackers=("wandb",))
    assert identities[0] == identities[1] != identities[2]


def test_a_model_without_stochastic_depth_names_the_remedy() -> None:
    with pytest.raises(UsageError, match="--drop-path 0"):
        create_student("vgg11", classes=5, drop_path=TrainConfig().drop_path)


def test_initialising_a_student_seeds_neither_this_process_nor_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(seed: int) -> None:
        raise AssertionError("the GPUs' generators were seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", forbidden)
    before = torch.get_rng_state()
    create_student("deit_ti", classes=5, args=TINY, seed=7)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_first_signal_asks_and_the_second_interrupts(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
    assert capfd.readouterr().err == "stopping after this update; once more to abort\n"
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def scores(model: float, ema: float) -> dict[str, dict[str, Score]]:
    by_head = {"model": model, "ema": ema}
    return {w: {"cls": Score(1, 1, 1, 1), "two_head": Score(top, 1, 1, 1)} for w, top in by_head.items()}


def test_the_best_is_the_primary_heads_and_the_earlier_of_equals() -> None:
    first = improved(None, scores(40, 50), head="two_head", epoch=1)
    assert first == Best(top1=50, epoch=1, weights="ema", head="two_head")
    assert improved(first, scores(50, 50), head="two_head", epoch=2) is None
    assert improved(first, scores(60, 55), head="two_head", epoch=2) == Best(60, 2, "model", "two_head")
    assert improved(first, {}, head="two_head", epoch=2) is None
    fallback = improved(None, scores(40, 50), head="three_head", epoch=1)
    assert fallback is not None and fallback.head == "cls"


@torch.no_grad()
@pytest.mark.parametrize("classes", [3, 5, 9])
def test_scores_are_those_of_the_obvious_loop(classes: int) -> None:
    student = create_student("deit_ti", classes=classes, grid=(2, 2), args=TINY).train()
    pixels = torch.randn(11, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(11) % classes
    slices = [(pixels[:4], labels[:4]), (pixels[4:], labels[4:])]
    found = evaluate({"it": student}, slices, device=torch.device("cpu"))["it"]
    assert student.training
    output = student.eval()(pixels)
    assert output.dist_BC is not None and output.dense_BCHW is not None
    dense = output.dense_BCHW.mean((2, 3))
    heads = {
        "cls": output.cls_BC,
        "two_head": (output.cls_BC + output.dist_BC) / 2,
        "three_head": (output.cls_BC + output.dist_BC + dense) / 3,
    }
    assert list(found) == list(heads)
    for name, logits in heads.items():
        ranks = [sum(bool(row[c] > row[y]) for c in range(classes)) for row, y in zip(logits, labels, strict=True)]
        losses = [-float(row.double().log_softmax(0)[y]) for row, y in zip(logits, labels, strict=True)]
        assert found[name].count == 11
        assert found[name].top1 == pytest.approx(100 * sum(rank < 1 for rank in ranks) / 11)
        assert found[name].top5 == pytest.approx(100 * sum(rank < 5 for rank in ranks) / 11)
        assert found[name].loss == pytest.approx(sum(losses) / 11, rel=1e-5)


def test_an_empty_evaluation_set_is_an_error() -> None:
    with pytest.raises(DataError, match="empty"):
        evaluate({"it": create_student("deit_ti", classes=5, args=TINY)}, [], device=torch.device("cpu"))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_what_it_names(name: str) -> None:
    preset = find_preset(name)
    config = TrainConfig.from_json(preset.train)
    objective = create_objective(preset.objective["name"], **{k: v for k, v in preset.objective.items() if k != "name"})
    student = create_student(preset.student, classes=10, args={"depth": 1}, drop_path=config.drop_path)
    assert objective.primary_head == preset.head
    of_method = {"nkd": "deit_", "vitkd": "deit_", "civt": "civt_"}.get(objective.name, "distilled")
    assert of_method in student.spec.model and ("distilled" in student.spec.model) == (of_method == "distilled")
    # DeiT's rule for its learning rate: 0.0005 for every 512 crops of a batch.
    assert config.lr == pytest.approx(5e-4 * config.batch_size / 512)
    assert preset.name in preset.command and preset.command.count("--labels") == objective.teachers


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'cskd-ti'"):
        find_preset("cskd-tiny")


@pytest.mark.slow
def test_a_compiled_student_trains_like_the_other(tmp_path: Path) -> None:
    run(tmp_path / "eager", CALM)
    run(tmp_path / "compiled", dataclasses.replace(CALM, compile=True))
    eager, compiled = (load_file(tmp_path / name / "last.safetensors") for name in ("eager", "compiled"))
    for name, value in eager.items():
        torch.testing.assert_close(value, compiled[name], rtol=1e-2, atol=1e-3)


def test_a_run_that_waits_for_data_says_what_helps(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=2)

    def said(name: str, **changes: Any) -> str:
        events: list[Any] = []
        run(tmp_path / name, config, watch=events.append, **changes)
        return "\n".join(event for event in events if isinstance(event, str))

    slow = said("slow", source=SyntheticSource(config, only=lambda: time.sleep(0.2)))
    assert slow.count("of the time for data: give more --workers") == 1
    assert "docs/performance.md" in slow
    fast = said("fast")
    assert "waiting" in fast and "give more" not in fast


def test_the_best_of_a_student_whose_added_head_is_not_kept_is_that_of_its_class_logits(
    toy_store: Path, toy: Path, tmp_path: Path
) -> None:
    done = cskd.train(
        labels=toy_store,
        data=toy,
        student="vit_tiny_patch16_224",
        student_args=STUDENT_ARGS,
        epochs=2,
        warmup_epochs=0,
        batch_size=20,
        workers=0,
        device="cpu",
        out=tmp_path / "run",
    )
    assert done.best is not None and done.best.head == "cls"
    assert cskd.evaluate(tmp_path / "run", data=toy, device="cpu", workers=0).scores["cls"].top1 == done.best.top1
