"""The whole way of a user, command by command, and where the values of options come from."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from cskd_pipeline.crops.evaluation import evaluation_crop
from cskd_pipeline.data import open_split
from cskd_pipeline.presets import PRESETS
from cskd_pipeline.runs.trained_model import open_model


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Collects what `train` hands to the library, and trains nothing."""
    from cskd_pipeline.errors import StoppedError

    seen: dict[str, Any] = {}

    def instead(config: Any, **settings: Any) -> None:
        seen.update(settings, config=config)
        raise StoppedError("as far as this test goes")

    monkeypatch.setattr("cskd_pipeline.training.loop.train", instead)
    yield seen


def test_a_teacher_of_ones_own_labels_data_for_a_student(toy: Path, tmp_path: Path, command: Any) -> None:
    machine = ("--workers", "0", "--device", "cpu")
    short = ("--epochs", "1", "--warmup-epochs", "0", "--batch-size", "16", "--drop-path", "0")
    trained = command(
        *["train", "--data", toy, "--student", "test_resnet", "--size", "32", "--recipe", "plain", "--eval-split"],
        *["none", *short, "--out", tmp_path / "teacher", *machine],
    )
    assert trained.code == 0, trained.err
    assert not (tmp_path / "teacher" / "best.safetensors").exists()
    labelled = command(
        *["precompute", "--data", toy, "--teacher", "test_resnet", "--size", "32", "--chunk", "16", *machine],
        *["--teacher-weights", tmp_path / "teacher" / "last.safetensors", "--out", tmp_path / "labels.zarr"],
    )
    assert labelled.code == 0, labelled.err
    assert "1 complete seed, 110 crops" in labelled.out


def test_index_reports_the_data(toy: Path, tmp_path: Path, command: Any) -> None:
    facts = json.loads(command("index", "--data", toy, "--json", "--out", tmp_path / "index").out)
    assert facts["samples"] == 110
    assert facts["samples_per_class"] == [36, 37]
    assert facts["digest"] == open_split(str(toy), "train").digest
    text = command("index", "--data", toy, "--split", "test").out
    assert "24 images, 3 classes" in text


def test_an_index_stands_for_its_data(
    toy: Path, tmp_path: Path, command: Any, train: list[object], finished_run: Path, finished_store: Path
) -> None:
    for split in ("train", "test"):
        assert command("index", "--data", toy, "--split", split, "--out", tmp_path / split).code == 0
    trained = command(*train, "--data", tmp_path / "train", "--labels", finished_store, "--out", tmp_path / "run")
    assert trained.code == 0, trained.err
    assert "not evaluated" in trained.err
    scores = [command("eval", finished_run, "--data", data, "--json") for data in (tmp_path / "test", toy)]
    assert scores[0].code == 0, scores[0].err
    assert json.loads(scores[0].out) == json.loads(scores[1].out)


def test_seeds_are_added_to_a_store(
    store: Path, toy: Path, command: Any, precompute: list[object], teacher_weights: Path
) -> None:
    assert json.loads(command("inspect", store, "--json").out)["complete_seeds"] == [0, 1]
    before = {path: path.read_bytes() for path in store.glob("seed-00000[01]/**/*") if path.is_file()}
    added = command(*precompute, "--seeds", "0:3", "--out", store)
    assert added.code == 0, added.err
    assert "8 of 12 blocks are committed already" in added.err
    assert "3 complete seeds, 330 crops" in added.out
    assert {path: path.read_bytes() for path in before} == before
    summary = json.loads(command("inspect", store, "--json").out)
    assert summary["complete_seeds"] == [0, 1, 2]
    assert summary["crops"] == 330
    assert summary["header"]["grid"] == [4, 4]
    progress = json.loads(command("status", store, "--json").out)
    assert progress["complete_seeds"] == [0, 1, 2] and progress["writers"] == []
    assert progress["seeds"] == [
        {"seed": seed, "done": 4, "claimed": 0, "missing": 0, "crops": 110} for seed in range(3)
    ]
    (store / "seed-000002/commits/000001.json").unlink()
    assert "seed    2: 3/4 blocks, 1 missing, 78 crops\n2 of 3 begun seeds are complete" in command("status", store).out
    shown = command("inspect", store).out
    for text in ("toy train: 110 images, 3 classes", "test_resnet", "4 x 4", "erase 0.25", "2 complete of 3", "0:2"):
        assert text in shown
    verified = command(
        *["verify", store, "--data", toy, "--teacher-weights", teacher_weights, "--crops", "64", "--workers", "0"],
        "--allow-incomplete",
    )
    assert verified.code == 0, verified.err
    assert "11 blocks checked, bad files: 0" in verified.out
    assert "crops recomputed, differences: 0" in verified.out


def test_a_teacher_sees_crops_normalised_as_it_was_trained(
    toy: Path, tmp_path: Path, command: Any, precompute: list[object], teacher_weights: Path, finished_store: Path
) -> None:
    def digest(store: Path) -> str:
        return json.loads(command("inspect", store, "--json").out)["digest"]

    def made(name: str, mean: str, std: str) -> Path:
        words = ["--teacher-mean", mean, "--teacher-std", std, "--seeds", "0:2", "--out", tmp_path / name]
        assert command(*precompute, *words).code == 0
        return tmp_path / name

    # timm has these for the toy teacher.
    assert digest(made("numbers", "0.5,0.5,0.5", "0.5")) == digest(finished_store)
    assert digest(made("name", "inception", "inception")) == digest(finished_store)

    other = made("other", "imagenet", "0.25,0.5,1")
    whole = digest(other)
    assert whole != digest(finished_store)
    assert "input normalised by mean [0.485, 0.456, 0.406], std [0.25, 0.5, 1.0]" in command("inspect", other).out
    # The store says itself how its teacher's input is normalised, to whoever works with the teacher again.
    (other / "seed-000001/commits/000002.json").unlink()
    source = ["--data", toy, "--teacher-weights", teacher_weights, "--workers", "0"]
    repaired = command("repair", other, *source)
    assert repaired.code == 0, repaired.err
    assert digest(other) == whole
    refused = command(*precompute, "--seeds", "0:3", "--out", other)
    assert refused.code == 4 and "teacher.mean" in refused.err


def test_more_seeds_get_the_targets_that_the_store_has(
    toy: Path, tmp_path: Path, command: Any, precompute: list[object]
) -> None:
    hard = [*precompute, "--out", tmp_path / "hard.zarr"]
    assert command(*hard, "--targets", "hard", "--seeds", "0").code == 0
    assert command(*hard, "--seeds", "1").code == 0
    summary = json.loads(command("inspect", tmp_path / "hard.zarr", "--json").out)
    assert summary["complete_seeds"] == [0, 1] and list(summary["header"]["encodings"]) == ["hard"]
    refused = command(*hard, "--seeds", "2", "--targets", "hard,soft")
    assert refused.code == 4 and "encodings.soft is absent in the store" in refused.error


def test_inspect_shows_the_fidelity_of_few_seeds_and_the_mean_of_many(
    finished_store: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = command("inspect", finished_store).out
    assert "fidelity   seed 0, hard: agreement 1 (on 62 crops)" in text and "seed 1, hard" in text
    monkeypatch.setattr("cskd_pipeline_cli.inspect.MAX_SEEDS", 1)
    text = command("inspect", finished_store).out
    assert "mean of 2 seeds (--json has each), hard: agreement 1 (on 124 crops)" in text and "seed 1" not in text


def test_verify_notices_hard_targets_that_are_not_the_argmax(
    store: Path, toy: Path, command: Any, teacher_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cskd_pipeline.labelling.recompute import Recomputed

    again = Recomputed(16, [], {"hard": {"crops": 16, "agreement": 0.9999}})
    monkeypatch.setattr("cskd_pipeline.labelling.recompute.recompute", lambda *_, **__: again)
    outcome = command(
        *["verify", store, "--data", toy, "--teacher-weights", teacher_weights, "--crops", "16", "--workers", "0"]
    )
    assert outcome.code == 3
    assert "hard targets are not the argmax of the teacher's logits" in outcome.error


def test_a_run_that_found_no_room_for_its_labels_goes_on_as_the_error_says(
    finished_store: Path, tmp_path: Path, command: Any, train: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cskd_pipeline.replay.tables.SMALL_BYTES", -1)
    words = [*train, "--labels", finished_store, "--out", tmp_path / "run"]
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10))
        failed = command(*words, "--scratch", tmp_path)
    assert failed.code == 75 and "--scratch" in failed.error and "--resume" in failed.error
    gone_on = command(*words, "--scratch", tmp_path, "--resume")
    assert gone_on.code == 0, gone_on.err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_verify_notices_that_the_images_have_changed(
    store: Path, toy: Path, command: Any, teacher_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cskd_pipeline.data import SampleIndex

    decode = SampleIndex.decode_parts
    monkeypatch.setattr(SampleIndex, "decode_parts", lambda *args: [part ^ 1 for part in decode(*args)])
    words = ["verify", store, "--data", toy, "--teacher-weights", teacher_weights, "--crops", "16", "--workers", "0"]
    outcome = command(*words, "--json")
    assert outcome.code == 3
    assert "differences: " in outcome.error
    assert {difference["what"] for difference in json.loads(outcome.out)["differences"]} >= {"pixels"}


@pytest.mark.parametrize("objective", ["cskd", "deit", "supervised"])
def test_every_objective_trains_from_labels(
    objective: str, finished_store: Path, tmp_path: Path, command: Any, train: list[object]
) -> None:
    words = [*train, "--labels", finished_store, "--objective", objective, "--out", tmp_path / "run"]
    outcome = command(*words, "--json")
    assert outcome.code == 0, outcome.err
    summary = json.loads(outcome.out)
    assert (summary["epochs"], summary["updates"]) == (1, 6)
    assert summary["best"]["epoch"] == 1
    again = command(*words, "--resume", "--json")
    assert again.code == 0
    assert json.loads(again.out)["already_finished"]
    assert "is finished" in again.err


def test_training_beside_a_live_teacher_equals_training_from_its_labels(
    finished_run: Path, tmp_path: Path, command: Any, train: list[object], teacher_weights: Path
) -> None:
    from safetensors.torch import load_file

    teacher = ("--teacher", "test_resnet", "--teacher-arg", "output_stride=8", "--teacher-weights", teacher_weights)
    crops = ("--size", "32", "--recipe-arg", "group=16", "--chunk", "16", "--seeds", "0:2")
    outcome = command(*train, *teacher, *crops, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    live, stored = load_file(tmp_path / "run" / "last.safetensors"), load_file(finished_run / "last.safetensors")
    assert all(torch.equal(live[key], stored[key]) for key in stored)


def test_metrics_go_to_tensorboard(finished_store: Path, tmp_path: Path, command: Any, train: list[object]) -> None:
    words = [*train, "--labels", finished_store, "--log", "tensorboard", "--out", tmp_path / "run"]
    outcome = command(*words)
    assert outcome.code == 0, outcome.err
    assert len(list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))) == 1


def test_eval_scores_a_run_folder_and_a_file_alike(finished_run: Path, toy: Path, command: Any) -> None:
    by_folder = json.loads(command("eval", finished_run, "--data", toy, "--weights", "last", "--json").out)
    by_file = json.loads(command("eval", finished_run / "last.safetensors", "--data", toy, "--json").out)
    assert by_folder == by_file
    assert by_folder["images"] == 24
    assert set(by_folder["scores"]) == {"cls", "two_head", "three_head"}
    row = json.loads((finished_run / "metrics.jsonl").read_text())
    assert by_folder["scores"]["two_head"]["top1"] == row["model/two_head/top1"]
    assert "24 images" in command("eval", finished_run, "--data", toy).out


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_an_exported_student_is_a_plain_model_of_timm(
    suffix: str, finished_run: Path, toy: Path, tmp_path: Path, command: Any
) -> None:
    from cskd_pipeline.runs.trained_model import open_model

    file = tmp_path / f"model.{suffix}"
    outcome = command("export", finished_run, file)
    assert outcome.code == 0, outcome.err
    call = next(line for line in outcome.out.splitlines() if line.startswith("timm.create_model"))
    model = eval(call.removesuffix(" (it averages head and head_dist)"), {"timm": timm}).eval()
    student = open_model(finished_run / "best.safetensors").eval()
    index = open_split(str(toy), "test")
    crops = np.stack([evaluation_crop(index.decode(sample), size=32, crop_pct=0.875) for sample in range(8)])
    pixels = torch.from_numpy(crops).float() / 255
    with torch.no_grad():
        ours = student(pixels)
        torch.testing.assert_close(model(pixels), (ours.cls_BC + ours.dist_BC) / 2, rtol=0, atol=1e-6)


def test_an_exported_folder_is_all_that_timm_needs(finished_run: Path, tmp_path: Path, command: Any) -> None:
    done = command("export", finished_run, tmp_path / "mine", "--hub", "--weights", "last")
    assert done.code == 0, done.err
    call = f'timm.create_model("local-dir:{tmp_path / "mine"}", pretrained=True)'
    assert done.out.splitlines()[-1].startswith(call)
    assert {file.name for file in (tmp_path / "mine").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    model = timm.create_model(f"local-dir:{tmp_path / 'mine'}", pretrained=True).eval()
    own = open_model(finished_run / "last.safetensors").eval()
    pixels = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(pixels), own.model(pixels))
    config = json.loads((tmp_path / "mine" / "config.json").read_text())
    assert config["label_names"] == ["disc", "bar", "plain"] and config["pretrained_cfg"]["license"] == "other"
    card = (tmp_path / "mine" / "README.md").read_text()
    for part in ("`test_resnet` of timm", "`toy`, split `train`", "`deit`" if "`deit`" in card else "`cskd`", "top-1"):
        assert part in card
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    again = command("export", finished_run, tmp_path / "mine", "--hub")
    assert again.code == 2 and "exists and is no empty folder" in again.error


def test_a_rednet_teaches_and_a_civt_is_trained_scored_and_exported(toy: Path, tmp_path: Path, command: Any) -> None:
    small = ["--size", "32", "--workers", "0", "--device", "cpu"]
    once = ["--epochs", "1", "--warmup-epochs", "0", "--batch-size", "22", "--objective", "supervised", *small]
    outcome = command("train", "--data", toy, "--student", "rednet26", *once, "--out", tmp_path / "teacher")
    assert outcome.code == 0, outcome.err
    weights = tmp_path / "teacher" / "best.safetensors"
    teacher = ["--teacher", "rednet26", "--teacher-weights", weights, "--seeds", "0"]
    outcome = command("precompute", "--data", toy, *teacher, *small, "--out", tmp_path / "labels.zarr")
    assert outcome.code == 0, outcome.err
    shape = {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    student = ["--student", "civt_s", *(f"--student-arg={key}={value}" for key, value in shape.items())]
    outcome = command("train", "--data", toy, *student, *once, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    scores = json.loads(command("eval", tmp_path / "run", "--data", toy, "--json").out)["scores"]
    assert list(scores) == ["cls", "conv", "inv", "civt_head"]
    file = tmp_path / "civt.safetensors"
    printed = command("export", tmp_path / "run", file).out.splitlines()[-1]
    assert printed.startswith("import cskd_pipeline.models.civt; timm.create_model('civt_s', num_classes=3, ")
    call, _, heads = printed.partition("; ")[2].partition(" (")
    assert heads == "it averages head, head_conv and head_inv)"
    assert eval(call, {"timm": timm}).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_flags_win_over_environment_over_file_over_preset_over_default(
    toy: Path, tmp_path: Path, command: Any, configured: dict[str, Any], finished_store: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "lr: 1e-3\nweight_decay: 0.3\nwarmup-epochs: 3\nbatch-size: 16\ncompile: false\n"
        "student: deit_ti\nstudent-arg: {img_size: 32, patch-size: 8, embed_dim: 24, depth: 1, num_heads: 2}\n"
        "objective-arg: [alpha=0.25]\n"
    )
    environment = {"CSKD_TRAIN_WEIGHT_DECAY": "0.2", "CSKD_TRAIN_WARMUP_EPOCHS": "2", "CSKD_TRAIN_DATA": str(toy)}
    words = ["train", "--labels", finished_store, "--out", tmp_path / "run", "--warmup-epochs", "1", "--device", "cpu"]
    words += ["--repeats", "1"]
    outcome = command(*words, "--preset", "cskd-b", "--config", config, env=environment)
    assert outcome.error == "Error: as far as this test goes"
    found = configured["config"]
    assert found.warmup_epochs == 1  # flag
    assert found.weight_decay == 0.2  # environment
    assert found.lr == 1e-3  # file
    assert found.batch_size == 16  # file
    assert found.precision == "bf16"  # preset
    assert found.seed == 0  # default
    assert configured["student"].spec.args["patch_size"] == 8
    assert configured["objective"].alpha == 0.25  # file
    assert configured["objective"].schedule == "linear"  # preset


def test_a_file_may_name_the_preset(
    toy: Path, tmp_path: Path, command: Any, configured: dict[str, Any], train: list[object]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("preset: deit-ti\nepochs: 7\nsize: 32\n")
    command(
        "train",
        *train[1:],
        "--objective",
        "supervised",
        env={"CSKD_TRAIN_CONFIG": str(config), "CSKD_TRAIN_OUT": str(tmp_path / "run")},
    )
    assert configured["config"].precision == "bf16"
    assert configured["config"].epochs == 1
    assert configured["notes"]["preset"] == "deit-ti"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_arrives_whole(
    name: str, toy: Path, tmp_path: Path, command: Any, configured: dict[str, Any], finished_store: Path
) -> None:
    preset = PRESETS[name]
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
    small = [f"{key}={value}" for key, value in sizes.items()]
    taught: list[object] = ["--labels", finished_store] * len(preset.teacher.split(" and "))
    if preset.objective["name"] in ("vkd", "vitkd"):  # a live teacher, whose features are not in the store
        weights = tmp_path / "teacher.safetensors"
        save_file(timm.create_model("vit_tiny_patch16_224", num_classes=3, **sizes).state_dict(), weights)
        taught = ["--teacher", "vit_tiny_patch16_224", "--teacher-weights", weights, "--size", "32"]
        taught += [word for argument in small for word in ("--teacher-arg", argument)]
    command(
        *["train", "--preset", name, "--data", toy, *taught, "--out", tmp_path / "run"],
        *[
            "--batch-size",
            "32",
            "--repeats",
            "2",
            "--device",
            "cpu",
            *(word for argument in small for word in ("--student-arg", argument)),
        ],
    )
    found = configured["config"].to_json()
    assert {key: found[key] for key in preset.train if key != "batch_size"} == {
        key: value for key, value in preset.train.items() if key != "batch_size"
    }
    assert configured["student"].spec.model.startswith(("deit_", "civt_"))
    settings = {"name": configured["objective"].name, **configured["objective"].to_json()}
    assert {key: settings[key] for key in preset.objective} == preset.objective


def test_a_preset_repeats_augmentation(tmp_path: Path, command: Any, train: list[object], finished_store: Path) -> None:
    outcome = command(*train, "--preset", "cskd-ti", "--labels", finished_store, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "--repeats 3 shows that many seeds in an epoch, 2 are available" in outcome.error


def test_another_objective_takes_nothing_from_the_presets(
    toy: Path, tmp_path: Path, command: Any, configured: dict[str, Any], finished_store: Path, train: list[object]
) -> None:
    words = [*train, "--labels", finished_store, "--repeats", "1", "--out", tmp_path / "run"]
    command(*words, "--preset", "cskd-ti", "--objective", "deit")
    assert configured["objective"].name == "deit"


@pytest.mark.parametrize("text, seeds", [("10:12", [10, 11]), ("7", [7]), ("0:1", [0])])
def test_seeds_in_a_file_are_ranges_not_times_of_day(text: str, seeds: list[int], tmp_path: Path) -> None:
    from cskd_pipeline_cli.yaml_text import parse_yaml

    from cskd_pipeline.seeds import parse_seeds

    assert parse_seeds(str(parse_yaml(f"seeds: {text}")["seeds"])) == seeds


def test_numbers_are_those_of_yaml_1_2() -> None:
    from cskd_pipeline_cli.yaml_text import parse_yaml

    assert parse_yaml("[1, -2, 1e-3, .5, 1., 0x10, 1_000, 08, 2024-01-01, true, null, 1:30, abc]") == [
        1, -2, 0.001, 0.5, 1.0, "0x10", "1_000", 8.0, "2024-01-01", True, None, "1:30", "abc",
    ]  # fmt: skip


def test_eval_of_a_run_scores_as_the_run_did(toy: Path, tmp_path: Path, command: Any) -> None:
    crops = ("--size", "40", "--crop-pct", "1", "--recipe", "plain", "--batch-size", "22", "--workers", "0")
    schedule = ("--epochs", "1", "--warmup-epochs", "0", "--drop-path", "0", "--ema-decay", "0", "--device", "cpu")
    trained = command("train", "--data", toy, "--student", "test_resnet", *crops, *schedule, "--out", tmp_path / "run")
    assert trained.code == 0
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    scored = json.loads(command("eval", tmp_path / "run", "--data", toy, "--workers", "0", "--json").out)
    assert scored["scores"]["cls"]["loss"] == pytest.approx(row["model/cls/loss"], abs=1e-6)


@pytest.mark.parametrize(
    "words, option",
    [
        (("train", "--data", "TOY", "--out", "NEW", "--chunk", "8"), "--chunk"),
        (("train", "--data", "TOY", "--out", "NEW", "--canary", "1"), "--canary"),
    ],
)
def test_options_that_would_have_no_effect_are_refused(
    words: tuple[str, ...],
    option: str,
    toy: Path,
    tmp_path: Path,
    command: Any,
    finished_store: Path,
    teacher_weights: Path,
) -> None:
    places = {"STORE": finished_store, "WEIGHTS": teacher_weights, "TOY": toy, "NEW": tmp_path / "new"}
    outcome = command(*(places.get(word, word) for word in words))
    assert outcome.code == 2
    assert f"{option} is given without" in outcome.error


def test_status_is_watched_until_all_is_complete(command: Any, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = store / "seed-000001/commits/000002.json"
    kept = commit.read_bytes()
    commit.unlink()
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            commit.write_bytes(kept)

    monkeypatch.setattr(time, "sleep", sleep)
    shown = command("status", store, "--watch", "--every", "3")
    assert shown.code == 0 and waited == [3, 3]
    ends = [line for line in shown.out.splitlines() if "begun seeds are complete" in line]
    assert [end[0] for end in ends] == ["1", "1", "2"]


def test_watching_ends_with_ctrl_c(command: Any, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    (store / "seed-000001/commits/000002.json").unlink()
    monkeypatch.setattr(time, "sleep", interrupt)
    shown = command("status", store, "--watch")
    assert shown.code == 0 and not shown.err
