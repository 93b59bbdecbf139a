"""Distil vision transformers from a CNN teacher that runs once.

    import cskd_pipeline as cskd

    cskd.precompute(data="DATA", teacher="regnety_160", seeds="0:30", out="labels.zarr")
    cskd.train(labels="labels.zarr", student="deit_s", out="run")

or with a training loop of your own:

    labels = cskd.open("labels.zarr")
    objective, student = cskd.objective("cskd"), labels.student("deit_s")
    with labels.loader(objective, student, batch_size=256, epochs=300) as loader:
        for epoch in range(300):
            loader.set_epoch(epoch)
            for pixels, y, targets in loader:
                loss = objective(student(pixels), y, targets).mean()

docs/python.md has all of it. Importing this package is cheap: each name loads what it needs when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cskd_pipeline.objectives import create_objective as objective
    from cskd_pipeline.progress import Progress
    from cskd_pipeline.runs.add_targets import AddTargetsRequest, add_targets
    from cskd_pipeline.runs.evaluate import EvaluateRequest, evaluate
    from cskd_pipeline.runs.export import export
    from cskd_pipeline.runs.export_labels import ExportLabelsRequest, export_labels
    from cskd_pipeline.runs.index import IndexRequest, index
    from cskd_pipeline.runs.inspect import inspect, status
    from cskd_pipeline.runs.open import Labels, open
    from cskd_pipeline.runs.pack import PackRequest, pack
    from cskd_pipeline.runs.plan import PlanRequest, plan
    from cskd_pipeline.runs.precompute import PrecomputeRequest, precompute
    from cskd_pipeline.runs.repair import RepairRequest, repair
    from cskd_pipeline.runs.report import ReportRequest, report
    from cskd_pipeline.runs.train import TrainRequest, train
    from cskd_pipeline.runs.verify import VerifyRequest, verify

__version__ = "0.2.0"

__all__ = [
    "AddTargetsRequest",
    "EvaluateRequest",
    "ExportLabelsRequest",
    "IndexRequest",
    "Labels",
    "PackRequest",
    "PlanRequest",
    "PrecomputeRequest",
    "Progress",
    "RepairRequest",
    "ReportRequest",
    "TrainRequest",
    "VerifyRequest",
    "add_targets",
    "evaluate",
    "export",
    "export_labels",
    "index",
    "inspect",
    "objective",
    "open",
    "pack",
    "plan",
    "precompute",
    "repair",
    "report",
    "status",
    "train",
    "verify",
]


_HOMES = {
    "AddTargetsRequest": "runs.add_targets",
    "ExportLabelsRequest": "runs.export_labels",
    "Labels": "runs.open",
    "Progress": "progress",
    "objective": "objectives",
    "status": "runs.inspect",
}
"""Modules of the names that are not in that of their verb."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, f"runs.{name.removesuffix('Request').lower()}")
    module = importlib.import_module(f"{__name__}.{home}")
    return getattr(module, "create_objective" if name == "objective" else name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
