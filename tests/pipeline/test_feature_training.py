"""Objectives on stored features, from the command line: trained, resumed to the bit, exported without their layers."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import commands
import pytest
import timm
import torch
from click.testing import CliRunner
from cskd_pipeline_cli.main import main
from safetensors.torch import load_file, save_file

import cskd_pipeline as cskd
import cskd_pipeline.runtime.stopping

ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
STUDENT = ["--student", "vit_tiny_patch16_224"]
for key, value in ARGS.items():
    STUDENT += ["--student-arg", f"{key}={value}"]
TEACHER_ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
SCHEDULE = ["--epochs", "2", "--warmup-epochs", "1", "--ema-decay", "0.9", "--lr", "3e-3", "--eval-split", "none"]
SETTINGS = {
    "vkd": [],
    "vitkd": [],
    "vitkd-nkd": ["--objective-arg", "nkd=true"],
}


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of a vision transformer that teaches."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **TEACHER_ARGS)
    path = tmp_path_factory.mktemp("vit") / "teacher.safetensors"
    save_file(model.state_dict(), path)
    options = ["--teacher", "vit_tiny_patch16_224", "--teacher-weights", str(path), "--chunk", "16", "--size", "32"]
    for key, value in TEACHER_ARGS.items():
        options += ["--teacher-arg", f"{key}={value}"]
    return [*options, "--workers", "0"]


@pytest.fixture
def store(teacher: list[str], toy: Path, session_cache: Path) -> Path:
    """A store that nobody changes."""
    path = session_cache / "features.zarr"
    if not path.exists():
        targets = [
            "--targets",
            "soft,truth,features.pooled,features.tokens",
            "--target-arg",
            "features.tokens.tokens=5",
        ]
        run("precompute", "--data", toy, *teacher, "--seeds", "0:2", *targets, "--out", path)
    return path


def command(name: str) -> list[str]:
    return [*STUDENT, *SCHEDULE, "--objective", name.partition("-")[0], *SETTINGS[name], "--batch-size", "22"]


def state(folder: Path) -> dict[str, torch.Tensor]:
    saved = torch.load(folder / "last.pt", weights_only=True)
    return {f"{kind}/{key}": value for kind in ("model", "ema") for key, value in saved[kind].items()}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_that_is_stopped_and_resumed_ends_in_the_same_bits(
    name: str, store: Path, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ["train", "--labels", store, "--data", toy, *command(name), "--workers", "0"]
    run(*common, "--out", tmp_path / "whole")
    asked = itertools.count(1)

    @contextlib.contextmanager
    def after_some_updates() -> Iterator[Callable[[], bool]]:
        yield lambda: next(asked) == 7  # of ten: in the second epoch

    with monkeypatch.context() as patched:
        patched.setattr(cskd_pipeline.runtime.stopping, "stop_on_signals", after_some_updates)
        run(*common, "--out", tmp_path / "parts", code=75)
    run(*common, "--out", tmp_path / "parts", "--resume")
    whole, parts = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    own = [key for key in whole if key.startswith("model/adapter.")]
    assert own and all(bool(whole[key].isfinite().all()) for key in own)


def test_weight_decay_leaves_the_projection_orthogonal(store: Path, toy: Path, tmp_path: Path) -> None:
    decay = ["--weight-decay", "0.5", "--out", tmp_path / "run"]
    run("train", "--labels", store, "--data", toy, *command("vkd"), *decay, "--workers", "0")
    labels, objective = cskd.open(store, data=toy), cskd.objective("vkd")
    student = labels.student(STUDENT[1], objective, args=ARGS)
    start = student.adapter.weight.detach().clone()
    student.load_state_dict(torch.load(tmp_path / "run" / "last.pt", weights_only=True)["model"])
    learned = student.adapter.weight.detach()
    assert (learned - start).abs().max() > 1e-3
    torch.testing.assert_close(learned.T @ learned, torch.eye(24), atol=1e-5, rtol=0)


@pytest.mark.parametrize("settings", [["vkd"], ["vitkd", "--objective-arg", "mask=1"]], ids=["vkd", "vitkd"])
def test_two_ranks_learn_what_one_does(settings: list[str], store: Path, toy: Path, tmp_path: Path) -> None:
    """With all positions masked nothing is drawn, so that the parts of a batch do not matter."""
    common = ["train", "--labels", str(store), "--data", str(toy), *STUDENT, *SCHEDULE, "--objective", *settings]
    common += ["--batch-size", "20", "--drop-path", "0", "--workers", "0", "--device", "cpu"]
    commands.run([*common, "--out", str(tmp_path / "one")])
    commands.run([*common, "--out", str(tmp_path / "two")], ranks=2)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    for key in one:
        torch.testing.assert_close(two[key], one[key], atol=2e-3, rtol=1e-2, msg=key)


@pytest.mark.parametrize("name", SETTINGS)
def test_an_exported_student_holds_nothing_but_timms_model(name: str, store: Path, toy: Path, tmp_path: Path) -> None:
    folder, file = tmp_path / "run", tmp_path / "student.safetensors"
    run("train", "--labels", store, "--data", toy, *command(name), "--workers", "0", "--out", folder)
    run("export", folder, file, "--weights", "last")
    exported = load_file(file)
    model = timm.create_model(STUDENT[1], num_classes=3, **ARGS)
    model.load_state_dict(exported)
    assert load_file(folder / "ema.safetensors").keys() == exported.keys()


def test_the_users_own_loop_trains_the_same_layers(store: Path, toy: Path) -> None:
    labels, objective = cskd.open(store, data=toy), cskd.objective("vitkd")
    student = labels.student(STUDENT[1], objective, args=ARGS)
    before = {name: value.clone() for name, value in student.named_parameters()}
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    with labels.loader(objective, student, batch_size=22, epochs=1, workers=0) as loader:
        pixels, y, targets = next(iter(loader))
        objective(student(pixels), y, targets, student.adapter).mean().backward()
        optimizer.step()
    learned = {name for name, value in student.named_parameters() if not torch.equal(value, before[name])}
    assert {name for name in before if name.startswith("adapter.")} <= learned


def test_a_student_starts_the_same_with_and_without_layers_beside_it(store: Path, toy: Path) -> None:
    labels = cskd.open(store, data=toy)
    one, other = (labels.student(STUDENT[1], cskd.objective(name), args=ARGS) for name in ("vitkd", "supervised"))
    assert other.adapter is None
    assert all(torch.equal(value, one.state_dict()[key]) for key, value in other.state_dict().items())


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["train/loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_live_teacher_trains_nearly_alike(name: str, teacher: list[str], toy: Path, tmp_path: Path) -> None:
    """All positions at 8 bits, and the same masks: what is left is the rounding of features."""
    targets = ["--targets", "full,features.pooled,features.tokens", "--target-arg", "full.dtype=float32"]
    targets += ["--target-arg", "features.tokens.tokens=0", "--target-arg", "features.tokens.bits=8"]
    run("precompute", "--data", toy, *teacher, "--seeds", "0:2", *targets, "--out", tmp_path / "labels.zarr")
    common = ["--data", toy, *command(name)]
    run("train", *common, "--labels", tmp_path / "labels.zarr", "--workers", "0", "--out", tmp_path / "stored")
    run("train", *common, *teacher, "--seeds", "0:2", "--out", tmp_path / "live")
    stored, live = losses(tmp_path / "stored"), losses(tmp_path / "live")
    assert stored != live
    assert stored == pytest.approx(live, rel=1e-4)


@pytest.mark.parametrize(
    ("targets", "objective", "said"),
    [
        ("soft", "vkd", "holds no features.pooled targets"),
        ("soft,truth", "vitkd", "holds no features.tokens targets"),
        ("features.tokens", "vitkd-nkd", "holds no soft and no truth targets"),
    ],
)
def test_a_store_that_lacks_them_is_refused_with_the_command_that_adds_them(
    targets: str, objective: str, said: str, teacher: list[str], toy: Path, tmp_path: Path
) -> None:
    path = tmp_path / "labels.zarr"
    few = ["--target-arg", "features.tokens.tokens=5"] if "tokens" in targets else []
    run("precompute", "--data", toy, *teacher, "--seeds", "0", "--targets", targets, *few, "--out", path)
    refused = run("train", "--labels", path, "--data", toy, *command(objective), "--out", tmp_path / "run", code=4)
    assert said in refused and "cskd-pipeline add-targets" in refused
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("student", "objective", "said"),
    [
        (["--student", "test_resnet"], "vitkd", "has no blocks of patch tokens"),
        ([*STUDENT, "--student-arg", "patch_size=16"], "vitkd", "has 4 patch tokens, the teacher 16"),
        ([*STUDENT, "--student-arg", "depth=2"], "vitkd", "has 2 blocks of patch tokens"),
        ([*STUDENT, "--student-arg", "patch_drop_rate=0.5"], "vkd", "drops patches"),
        (["--student", "civt_ti"], "vkd", "choose another --objective"),
        (["--student", "civt_ti"], "vitkd", "choose another --objective"),
    ],
)
def test_a_student_without_such_tokens_is_refused(
    student: list[str], objective: str, said: str, store: Path, toy: Path, tmp_path: Path
) -> None:
    common = ["--labels", store, "--data", toy, *SCHEDULE, "--objective", objective, "--out", tmp_path / "run"]
    for code in (2, 4):
        result = CliRunner().invoke(main, ["train", *map(str, common), *student])
        if result.exit_code == code:
            break
    assert result.exit_code in (2, 4) and said in result.output and len(result.output.strip().splitlines()) == 1


@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "test_convnext"])
def test_vkd_trains_any_backbone(model: str, store: Path, toy: Path, tmp_path: Path) -> None:
    common = ["--labels", store, "--data", toy, *SCHEDULE, "--objective", "vkd", "--batch-size", "22"]
    run("train", *common, "--student", model, "--workers", "0", "--out", tmp_path / "run")
    first, second = losses(tmp_path / "run")
    assert second < first
