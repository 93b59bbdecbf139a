"""How many actors a Ray cluster is asked for, and what each of them takes of its node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cskd_pipeline.errors import UsageError

MAX_WORKERS = 16
"""The most processes that read images for an actor, where their number is not given."""
_UNSEEN_CPUS = 4
"""Of an actor for nodes that are yet to join the cluster, where nothing else is known."""


class ActorPlan(NamedTuple):
    """What to ask Ray for.

    Attributes:
        actors: how many.
        gpus: of each, 0 or 1.
        cpus: of each.
        workers: processes that read images, of each.
    """

    actors: int
    gpus: int
    cpus: int
    workers: int


def plan_actors(
    nodes: Sequence[Mapping[str, float]], *, actors: int | None, workers: int | None, device: str | None
) -> ActorPlan:
    """As many actors as there are GPUs, or one where there are none, and an even share of processors for each.

    No actor asks for more than a node has for it: it would wait for ever.

    Args:
        nodes: "CPU", "GPU" and other resources of each node.
        actors: how many; None: see above.
        workers: of each actor; None: its processors but one, at most 16, or 3 where no node has a GPU yet.
        device: "cpu" leaves GPUs alone, "cuda" asks for them though there are none yet; None takes those there are.

    Raises:
        UsageError: the device is one that Ray does not choose.
    """
    if device not in (None, "cpu", "cuda"):
        raise UsageError(f"--device {device} is given, but Ray chooses each actor's GPU; give cuda or cpu")
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    on_gpu = device == "cuda" or (device is None and gpus > 0)
    count = actors or (max(1, gpus) if on_gpu else 1)
    if on_gpu and gpus:
        share = min(int(node.get("CPU", 0) // node["GPU"]) for node in nodes if node.get("GPU", 0) >= 1)
    elif on_gpu:
        share = _UNSEEN_CPUS if workers is None else workers + 1
    else:
        processors = [int(node.get("CPU", 0)) for node in nodes]
        share = min(max(processors, default=1), sum(processors) // count)
    if workers is None:
        workers = max(1, min(MAX_WORKERS, share - 1))
    return ActorPlan(count, int(on_gpu), max(1, min(share, workers + 1)), workers)
