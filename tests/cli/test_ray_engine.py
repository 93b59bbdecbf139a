"""`precompute --engine ray`: what is wrong is said in one line, and a real Ray gives the store of a single process."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cskd_pipeline_cli.precompute import precompute as precompute_command

from cskd_pipeline.runs.precompute import PrecomputeRequest


@pytest.fixture
def on_ray(precompute: list[object], tmp_path: Path) -> list[object]:
    return [*precompute, "--out", tmp_path / "new", "--engine", "ray"]


@pytest.mark.parametrize(
    "words, code, texts",
    [
        (["--tasks", "0"], 2, ["--tasks", "at least 1"]),
        (["--tasks", "many"], 2, ["--tasks", "'many'"]),
        (["--rank", "0", "--world-size", "2"], 2, ["--rank", "leave them out"]),
        (["--ray-address", "ray://head:10001"], 2, ["ray job submit"]),
        (["--recipe", "dei"], 2, ["recipe", "'deit'"]),
        (["--block", "1"], 2, ["--block"]),
    ],
)
def test_wrong_usage_is_one_line_before_ray_is_started(
    words: list[str], code: int, texts: list[str], command: Any, on_ray: list[object], tmp_path: Path
) -> None:
    outcome = command(*on_ray, *words)
    assert outcome.code == code
    assert all(text in outcome.error for text in texts)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("words", [["--tasks", "2"], ["--ray-address", "auto"]])
def test_options_of_ray_are_refused_without_it(
    words: list[str], command: Any, precompute: list[object], tmp_path: Path
) -> None:
    outcome = command(*precompute, "--out", tmp_path / "new", *words)
    assert outcome.code == 2 and words[0] in outcome.error and "--engine ray" in outcome.error


def test_ray_that_is_not_installed_is_named(command: Any, on_ray: list[object], monkeypatch: Any) -> None:
    monkeypatch.delitem(sys.modules, "cskd_pipeline.labelling.ray_tasks", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    outcome = command(*on_ray)
    assert outcome.code == 2
    assert "pip install 'cskd-pipeline[ray]'" in outcome.error


@pytest.mark.parametrize("by_variable", [False, True])
def test_a_cluster_out_of_reach_is_named(by_variable: bool, command: Any, on_ray: list[object]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    if by_variable:
        outcome = command(*on_ray, env={"RAY_ADDRESS": address})
    else:
        outcome = command(*on_ray, "--ray-address", address)
    assert outcome.code == 75
    assert f"no Ray cluster can be reached at {address}" in outcome.error


def test_settings_mean_the_same_in_another_folder(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CSKD_DATA_ROOT", "sets")
    settings = PrecomputeRequest(data="images", out="labels.zarr", teacher="resnet18", teacher_weights="w.pth")
    found = settings.anywhere()
    here = str(tmp_path)
    assert (found.data, found.data_root, found.out) == (f"{here}/images", f"{here}/sets", f"{here}/labels.zarr")
    assert found.teacher_weights == tmp_path / "w.pth"
    for data, expected in [
        ("imagenette", "imagenette"),
        ("./imagenette", f"{here}/imagenette"),
        ("train-{0..3}.tar", f"{here}/train-{{0..3}}.tar"),
        ("/sets/x", "/sets/x"),
        ("s3://bucket/x-{0..3}.tar", "s3://bucket/x-{0..3}.tar"),
        ("imagenete", "imagenete"),
    ]:
        assert dataclasses.replace(settings, data=data).anywhere().data == expected
    far = dataclasses.replace(settings, out="s3://bucket/labels", teacher_weights=None).anywhere()
    assert far.out == "s3://bucket/labels" and far.teacher_weights is None


def test_the_files_in_deploy_fit_the_command(tmp_path: Path) -> None:
    deploy = Path(__file__).parents[2] / "deploy/ray"
    subprocess.run(["bash", "-n", deploy / "submit.sh"], check=True)
    fixed = re.search(r"cskd-pipeline precompute (.*) \"\$@\"", (deploy / "submit.sh").read_text())
    cluster = (deploy / "cluster.yaml").read_text()
    given = re.search(r"submit.sh (.*?)\n#   ray down", cluster, re.DOTALL)
    assert fixed and given
    words = shlex.split(fixed[1] + " " + given[1].replace("\\\n#", ""))
    asked = precompute_command.make_context("precompute", words).params
    kinds = yaml.safe_load(cluster)["available_node_types"]
    assert int(asked["tasks"]) == kinds["gpu"]["max_workers"]
    assert int(asked["workers"]) + 1 == kinds["gpu"]["resources"]["CPU"]


@pytest.mark.slow
def test_tasks_that_are_killed_and_a_process_without_ray_make_the_store_of_a_single_process(
    command: Any, precompute: list[object], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    words = [*map(str, precompute), "--no-teacher-check", "--seeds", "0:12", "--out"]
    assert command(*words, tmp_path / "plain").code == 0

    pids: dict[str, int] = {}
    lines: list[str] = []
    killed: dict[str, int] = {}
    with subprocess.Popen(
        [sys.executable, "-m", "cskd_pipeline_cli", *words, tmp_path / "ray", "--engine", "ray", "--tasks", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stderr:
            lines.append(line)
            if begun := re.match(r"task (\d) is at work on .*, process (\d+)", line):
                pids[begun[1]] = int(begun[2])
            if not killed and "committed, " in line:
                killed = dict(pids)
                for pid in killed.values():
                    os.kill(pid, signal.SIGKILL)
                beside = command(*precompute, "--seeds", "10:12", "--out", tmp_path / "ray")
                assert beside.code == 0
        out = process.stdout.read()
    said = "".join(lines)
    assert process.returncode == 0, said
    assert out == f"{tmp_path / 'ray'}: 12 complete seeds, 1,320 crops, {out.rpartition('crops, ')[2]}"
    assert all(f"the process of task {rank} died" in said for rank in killed)
    units = re.findall(r"seed \d+ block \d/4 committed", said + beside.err)
    assert len(units) == len(set(units)) >= 48 - 2, "each is told once, but for one in work at a kill"
    assert "Traceback" not in said and "raylet" not in said
    shown = [json.loads(command("inspect", tmp_path / name, "--json").out) for name in ("ray", "plain")]
    assert shown[0]["digest"] == shown[1]["digest"]
    assert not [*(tmp_path / "ray/.claims").iterdir()] and not [*(tmp_path / "ray/.writers").iterdir()]
