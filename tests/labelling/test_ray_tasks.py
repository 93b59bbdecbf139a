"""What Ray is asked for: a GPU for each task, an even share of processors, and never more than a node has."""

from __future__ import annotations

from typing import Any

import pytest

from cskd_pipeline.errors import UsageError
from cskd_pipeline.labelling.ray_tasks import Plan, plan_tasks

GPUS = {"CPU": 32.0, "GPU": 4.0}
HEAD = {"CPU": 4.0, "memory": 1e9}


@pytest.mark.parametrize(
    "nodes, asked, plan",
    [
        ([HEAD, GPUS, GPUS], {}, Plan(8, 1, 8, 7)),
        ([HEAD, GPUS], {"tasks": 16}, Plan(16, 1, 8, 7)),
        ([HEAD, GPUS, {"CPU": 12, "GPU": 4}], {}, Plan(8, 1, 3, 2)),
        ([HEAD, GPUS], {"workers": 2}, Plan(4, 1, 3, 2)),
        ([HEAD, GPUS], {"workers": 20}, Plan(4, 1, 8, 20)),
        ([{"CPU": 128, "GPU": 1}], {}, Plan(1, 1, 17, 16)),
        ([{"CPU": 1, "GPU": 2}], {}, Plan(2, 1, 1, 1)),
        ([HEAD, GPUS], {"device": "cpu"}, Plan(1, 0, 17, 16)),
        ([{"CPU": 64}], {"device": "cuda"}, Plan(1, 1, 4, 3)),
        ([{"CPU": 2}], {"device": "cuda", "tasks": 9, "workers": 7}, Plan(9, 1, 8, 7)),
        ([HEAD], {}, Plan(1, 0, 4, 3)),
        ([HEAD, HEAD], {"tasks": 4}, Plan(4, 0, 2, 1)),
        ([HEAD, HEAD], {"tasks": 1}, Plan(1, 0, 4, 3)),
        ([{"CPU": 2}], {"tasks": 3, "workers": 0}, Plan(3, 0, 1, 0)),
        ([], {}, Plan(1, 0, 1, 1)),
    ],
)
def test_what_a_task_takes(nodes: Any, asked: dict[str, Any], plan: Plan) -> None:
    assert plan_tasks(nodes, **{"tasks": None, "workers": None, "device": None, **asked}) == plan


@pytest.mark.parametrize("device", ["cuda:1", "tpu"])
def test_no_gpu_is_chosen_by_hand(device: str) -> None:
    with pytest.raises(UsageError, match=device):
        plan_tasks([GPUS], tasks=None, workers=None, device=device)
