"""The files of `deploy/` fit the command line that they start."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cskd_pipeline_cli.main import main
from cskd_pipeline_cli.precompute import precompute

from cskd_pipeline.errors import DataError, MismatchError, RetryError, StoppedError, UsageError

DEPLOY = Path(__file__).parents[1] / "deploy"
SCRIPTS = sorted(path for path in (DEPLOY / "slurm").iterdir() if path.suffix in (".sh", ".sbatch"))


@pytest.fixture
def job() -> Any:
    return yaml.safe_load((DEPLOY / "kubernetes/precompute-job.yaml").read_text())["spec"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_read_the_scripts(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("script", [path for path in SCRIPTS if path.suffix == ".sbatch"], ids=lambda path: path.name)
def test_options_in_the_sbatch_files_exist(script: Path) -> None:
    block = re.search(r"^options=\(\n(.*?)^\)", script.read_text(), re.DOTALL | re.MULTILINE)
    assert block
    words = [word for line in block[1].splitlines() for word in line.partition(" #")[0].split()]
    assert precompute.make_context("precompute", words).params["out"]


def test_the_pods_arguments_exist(job: Any) -> None:
    (container,) = job["template"]["spec"]["containers"]
    command, *words = container["args"]
    assert main.commands[command] is precompute
    assert precompute.make_context("precompute", words).params["out"].startswith("s3://")


def test_pods_are_replaced_where_the_same_command_goes_on_and_only_there(job: Any) -> None:
    (container,) = job["template"]["spec"]["containers"]
    codes = {}
    for rule in job["podFailurePolicy"]["rules"]:
        if "onExitCodes" in rule:
            assert rule["onExitCodes"]["containerName"] == container["name"]
            assert rule["onExitCodes"]["operator"] == "In"
            codes[rule["action"]] = set(rule["onExitCodes"]["values"])
    assert codes == {
        "Ignore": {RetryError.exit_code, StoppedError.exit_code},
        "FailJob": {UsageError.exit_code, DataError.exit_code, MismatchError.exit_code},
    }
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # else such a policy is refused


def test_ranks_and_world_size_of_the_pods_fit(job: Any) -> None:
    (container,) = job["template"]["spec"]["containers"]
    (world,) = (entry["value"] for entry in container["env"] if entry["name"] == "CSKD_PRECOMPUTE_WORLD_SIZE")
    assert int(world) == job["completions"] == job["parallelism"]
    assert job["completionMode"] == "Indexed"
