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
    from cskd_pipeline.runs.evaluate import EvaluateRequest, evaluate
    from cskd_pipeline.runs.export import export
    from cskd_pipeline.runs.export_labels import ExportLabelsRequest, export_labels
    from cskd_pipeline.runs.index import IndexRequest, index
    from cskd_pipeline.runs.inspect import inspect
    from cskd_pipeline.runs.open import Labels, open
    from cskd_pipeline.runs.precompute import PrecomputeRequest, precompute
    from cskd_pipeline.runs.repair import RepairRequest, repair
    from cskd_pipeline.runs.status import status
    from cskd_pipeline.runs.train import TrainRequest, train
    from cskd_pipeline.runs.verify import VerifyRequest, verify

__version__ = "0.1.0"

_HOMES = {
    "runs.precompute": ("precompute", "PrecomputeRequest"),
    "runs.open": ("open", "Labels"),
    "objectives": ("objective",),
    "runs.train": ("train", "TrainRequest"),
    "runs.evaluate": ("evaluate", "EvaluateRequest"),
    "runs.export": ("export",),
    "runs.index": ("index", "IndexRequest"),
    "runs.inspect": ("inspect",),
    "runs.status": ("status",),
    "runs.verify": ("verify", "VerifyRequest"),
    "runs.repair": ("repair", "RepairRequest"),
    "runs.export_labels": ("export_labels", "ExportLabelsRequest"),
    "progress": ("Progress",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "EvaluateRequest",
    "ExportLabelsRequest",
    "IndexRequest",
    "Labels",
    "PrecomputeRequest",
    "Progress",
    "RepairRequest",
    "TrainRequest",
    "VerifyRequest",
    "evaluate",
    "export",
    "export_labels",
    "index",
    "inspect",
    "objective",
    "open",
    "precompute",
    "repair",
    "status",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOME[name]}")
    return getattr(module, "create_objective" if name == "objective" else name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
