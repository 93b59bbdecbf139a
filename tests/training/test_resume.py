"""A run that is stopped, killed or resumed ends where an uninterrupted one does, bit for bit."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import rank_of_a_run
from synthetic_training import CONFIG, Countdown, Killed, SyntheticSource, killed_run, run, same, state_of
from warm import Started, start_interpreter, start_ranks

from cskd_pipeline.checkpoint import load_state, read_metadata
from cskd_pipeline.errors import DataError, MismatchError, RetryError, StoppedError, UsageError
from cskd_pipeline.models.weights import load_weights
from cskd_pipeline.objectives import create_objective
from cskd_pipeline.training.config import TrainConfig
from cskd_pipeline.training.run_folder import RunFolder, RunInputs

MICRO_BATCHES = 3 * 3 * 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(folder)
    return folder


def metrics(folder: Path) -> list[dict[str, Any]]:
    clock = ("seconds", "crops_per_s", "data_wait_share")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in clock} for row in rows]


def assert_equal_runs(first: Path, second: Path) -> None:
    assert same(state_of(first), state_of(second))
    assert metrics(first) == metrics(second)
    for kind in ("last", "ema", "best"):
        models = [folder / f"{kind}.safetensors" for folder in (first, second)]
        assert same(*map(load_weights, models)) and same(*map(read_metadata, models))


@pytest.mark.parametrize("batches", [0, 1, 5, 6, 7, 13, MICRO_BATCHES - 1])
def test_a_killed_run_resumes_to_the_same_bits(batches: int, whole: Path, tmp_path: Path) -> None:
    killed_run(tmp_path / "run", batches=batches)
    run(tmp_path / "run", resume=True)
    assert_equal_runs(whole, tmp_path / "run")


@pytest.mark.parametrize("updates", [0, 1, 2, 3, 7])
def test_a_stopped_run_resumes_in_mid_epoch_to_the_same_bits(updates: int, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match="--resume") as caught:
        run(tmp_path / "run", stop=Countdown(updates))
    assert caught.value.exit_code == 75
    source = SyntheticSource(CONFIG)
    run(tmp_path / "run", resume=True, source=source)
    done = load_state(tmp_path / "run" / "last.pt")["progress"]["epoch"]
    assert done == CONFIG.epochs and len(source.asked) <= CONFIG.epochs
    assert_equal_runs(whole, tmp_path / "run")


def test_a_run_stopped_after_every_update_still_ends_in_the_same_bits(whole: Path, tmp_path: Path) -> None:
    stops = 0
    while True:
        try:
            run(tmp_path / "run", resume=True, stop=Countdown(0))
            break
        except StoppedError:
            stops += 1
    # One stop an update; the three ends of epochs ask once more, except the last.
    assert stops == 9 + 2
    assert_equal_runs(whole, tmp_path / "run")


@pytest.mark.parametrize("moment", ["save_model", "save_state", "evaluate"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_run_killed_while_it_saves_or_evaluates_resumes_to_the_same_bits(
    moment: str, count: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cskd_pipeline.training import run as saving

    act, countdown = getattr(saving, moment), Countdown(count)

    def killed(*args: Any, **kwargs: Any) -> Any:
        countdown.kill()
        return act(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(saving, moment, killed)
        with contextlib.suppress(Killed):
            run(tmp_path / "run")
    run(tmp_path / "run", resume=True)
    assert_equal_runs(whole, tmp_path / "run")


def test_a_run_folder_in_use_is_refused_until_its_user_ends(whole: Path, tmp_path: Path) -> None:
    killed_run(tmp_path / "run", batches=2)
    folder = RunFolder(tmp_path / "run")
    with (
        folder.open(folder.settings(), resume=True),  # a lock is of who opened the folder, be it this process
        pytest.raises(RetryError, match=r"another process trains in .*run \(the ranks of a torchrun"),
    ):
        run(tmp_path / "run", resume=True)
    run(tmp_path / "run", resume=True)
    assert_equal_runs(whole, tmp_path / "run")


def test_sparse_checkpoints_fall_back_further_and_rows_beyond_them_are_dropped(whole: Path, tmp_path: Path) -> None:
    sparse = dataclasses.replace(CONFIG, checkpoint_every=2)
    killed_run(tmp_path / "run", sparse, batches=7)
    assert len(metrics(tmp_path / "run")) == 1 and not (tmp_path / "run" / "last.pt").exists()
    source = SyntheticSource(CONFIG)
    run(tmp_path / "run", resume=True, source=source)
    assert source.asked[0] == (0, 0)
    assert same(metrics(whole), metrics(tmp_path / "run"))


def test_half_precision_scales_resume_too(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, precision="fp16", clip_grad=1.0)
    run(tmp_path / "whole", config)
    killed_run(tmp_path / "run", config, batches=8)
    run(tmp_path / "run", config, resume=True)
    assert load_state(tmp_path / "run" / "last.pt")["scaler"]["scale"] > 1
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_metrics_have_one_row_an_epoch_in_both_forms(whole: Path) -> None:
    rows = metrics(whole)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["ratio"] for row in rows] == pytest.approx([1, 2 / 3, 1 / 3], abs=1e-4)
    assert {f"{w}/{h}/top1" for w in ("model", "ema") for h in ("cls", "two_head", "three_head")} <= rows[0].keys()
    with (whole / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["train/loss"]) for row in table] == [row["train/loss"] for row in rows]
    assert {"crops_per_s", "seconds", "data_wait_share"} <= table[0].keys()


def test_resuming_a_finished_run_does_nothing_and_says_so(whole: Path) -> None:
    said: list[Any] = []
    before = {file.name: file.read_bytes() for file in whole.iterdir()}
    summary = run(whole, resume=True, watch=said.append)
    assert summary.already_finished and summary.epochs == CONFIG.epochs and summary.updates == 9
    assert said[-1].endswith("is finished: 3 of 3 epochs")
    assert {file.name: file.read_bytes() for file in whole.iterdir()} == before


def test_a_folder_with_a_run_is_not_taken_twice(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--resume"):
        run(whole)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match="holds no run"):
        run(tmp_path)


INPUTS = RunInputs(
    targets="none",
    data={"name": "a", "split": "train", "digest": "b"},
    classes=("x", "y"),
    recipe={},
    seeds=(0,),
    repeats=1,
    shuffle="full",
    crop_pct=1.0,
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": dataclasses.replace(CONFIG, lr=0.25)}, "train.lr is 0.005 there and 0.25 here"),
        ({"objective": create_objective("cskd", weight=2.0)}, "objective.weight is 1.0 there and 2.0 here"),
        ({"inputs": INPUTS}, "extra.data.digest is None there and 'b' here"),
    ],
)
def test_resuming_with_other_settings_shows_both_values(changes: dict[str, Any], message: str, whole: Path) -> None:
    with pytest.raises(MismatchError, match=message):
        run(whole, resume=True, **changes)


def test_intervals_and_notes_may_change_when_resuming(whole: Path, tmp_path: Path) -> None:
    killed_run(tmp_path / "run", batches=7)
    run(
        tmp_path / "run",
        dataclasses.replace(CONFIG, eval_every=3, checkpoint_every=5),
        resume=True,
        notes={"workers": 9},
    )
    assert json.loads((tmp_path / "run" / "config.json").read_text())["notes"]["workers"] == 9
    assert same(state_of(tmp_path / "run")["model"], state_of(whole)["model"])


def test_a_damaged_checkpoint_is_named_and_kept(tmp_path: Path) -> None:
    killed_run(tmp_path / "run", batches=7)
    checkpoint = tmp_path / "run" / "last.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"last\.pt is damaged"):
        run(tmp_path / "run", resume=True)
    assert checkpoint.stat().st_size == 5000


def finished(ranks: Sequence[Started]) -> tuple[bool, str]:
    """Whether all of them have done what they were to do, and what they said."""
    codes = [rank.finish() for rank in ranks]
    return not any(codes), "".join(rank.err.read_text() for rank in ranks)


def two_ranks(folder: Path, *options: str) -> tuple[bool, str]:
    return finished(start_ranks(rank_of_a_run.main, [str(folder), *options], ranks=2))


@pytest.mark.slow
def test_two_processes_resume_to_the_same_bits_and_learn_what_one_learns(whole: Path, tmp_path: Path) -> None:
    import torch

    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done, said = finished([start_interpreter(*torchrun, rank_of_a_run.__file__, str(tmp_path / "whole"))])
    assert done, said
    for folder, option, number in (("killed", "--kill", "7"), ("stopped", "--stop", "4")):
        assert not two_ranks(tmp_path / folder, option, number)[0]
        assert (tmp_path / folder / "last.pt").exists()
        done, said = two_ranks(tmp_path / folder, "--resume")
        assert done, said
        assert_equal_runs(tmp_path / "whole", tmp_path / folder)
    # The same global batches, so the same loss; drop path differs between ranks, hence a run without it.
    assert two_ranks(tmp_path / "two", "--no-drop-path")[0]
    run(tmp_path / "one", dataclasses.replace(CONFIG, drop_path=0.0))
    for one, two in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert one == pytest.approx(two, rel=1e-4)
    one_weights, two_weights = (state_of(tmp_path / name)["model"] for name in ("one", "two"))
    for name, value in one_weights.items():
        torch.testing.assert_close(value, two_weights[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_ranks_that_see_different_run_folders_all_say_so(tmp_path: Path) -> None:
    # The first rank's folder holds a checkpoint, the second's does not.
    with pytest.raises(StoppedError):
        run(tmp_path / "run" / "0", stop=Countdown(1))
    done, said = two_ranks(tmp_path / "run", "--private", "--resume")
    assert not done
    told = "not the same on all nodes: rank 0 at epoch 1, update 3, rank 1 without a checkpoint; put it on shared"
    assert told in said


def test_config_is_refused_with_bound_and_value() -> None:
    for settings, message in (
        ({"epochs": 0}, "--epochs must be at least 1, found 0"),
        ({"epochs": 3}, "5 warm-up epochs leave nothing of 3"),
        ({"lr": float("nan")}, "--lr must be greater than 0, found nan"),
        ({"precision": "bf61"}, "did you mean 'bf16'"),
        ({"ema_decay": 1.5}, "at most 1, found 1.5"),
    ):
        with pytest.raises(UsageError, match=message):
            TrainConfig(**settings)
    with pytest.raises(UsageError, match="nearest sizes are 9 and 12"):
        TrainConfig(batch_size=10).micro_batch(3)
