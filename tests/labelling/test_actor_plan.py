"""What Ray is asked for: a GPU for each actor, an even share of processors, and never more than a node has."""

from __future__ import annotations

from typing import Any

import pytest

from cskd_pipeline.errors import UsageError
from cskd_pipeline.labelling.actor_plan import ActorPlan, plan_actors

GPUS = {"CPU": 32.0, "GPU": 4.0}
HEAD = {"CPU": 4.0, "memory": 1e9}


@pytest.mark.parametrize(
    "nodes, asked, plan",
    [
        ([HEAD, GPUS, GPUS], {}, ActorPlan(8, 1, 8, 7)),
        ([HEAD, GPUS], {"actors": 16}, ActorPlan(16, 1, 8, 7)),
        ([HEAD, GPUS, {"CPU": 12, "GPU": 4}], {}, ActorPlan(8, 1, 3, 2)),
        ([HEAD, GPUS], {"workers": 2}, ActorPlan(4, 1, 3, 2)),
        ([HEAD, GPUS], {"workers": 20}, ActorPlan(4, 1, 8, 20)),
        ([{"CPU": 128, "GPU": 1}], {}, ActorPlan(1, 1, 17, 16)),
        ([{"CPU": 1, "GPU": 2}], {}, ActorPlan(2, 1, 1, 1)),
        ([HEAD, GPUS], {"device": "cpu"}, ActorPlan(1, 0, 17, 16)),
        ([{"CPU": 64}], {"device": "cuda"}, ActorPlan(1, 1, 4, 3)),
        ([{"CPU": 2}], {"device": "cuda", "actors": 9, "workers": 7}, ActorPlan(9, 1, 8, 7)),
        ([HEAD], {}, ActorPlan(1, 0, 4, 3)),
        ([HEAD, HEAD], {"actors": 4}, ActorPlan(4, 0, 2, 1)),
        ([HEAD, HEAD], {"actors": 1}, ActorPlan(1, 0, 4, 3)),
        ([{"CPU": 2}], {"actors": 3, "workers": 0}, ActorPlan(3, 0, 1, 0)),
        ([], {}, ActorPlan(1, 0, 1, 1)),
    ],
)
def test_what_an_actor_takes(nodes: Any, asked: dict[str, Any], plan: ActorPlan) -> None:
    assert plan_actors(nodes, **{"actors": None, "workers": None, "device": None, **asked}) == plan


@pytest.mark.parametrize("device", ["cuda:1", "tpu"])
def test_no_gpu_is_chosen_by_hand(device: str) -> None:
    with pytest.raises(UsageError, match=device):
        plan_actors([GPUS], actors=None, workers=None, device=device)
