r"""What a training step costs with each objective on stored labels, over one on true labels alone.

    python benchmarks/objectives.py --data 'DATA/imagenet_sample/*.tar' --write docs/benchmarks.md
    python benchmarks/objectives.py --data DATA --device cuda --size 224 --batch 512 --precision bf16

Steps are those of `benchmarks/steps.py`: the same student with both heads, on the same crops, each objective in turn.
The labels of `vitkd` are a vision transformer's, as wide as a ViT-S.
Times are medians of processor time on one core of a CPU, and of wall time on a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import report
from steps import STEP_OPTIONS, WARM_UP, Steps, add_step_options, prepare

Row = dict[str, Any]
VARIANTS: dict[str, dict[str, Any]] = {"deit": {"mode": "soft"}, "cskd": {"mode": "soft"}, "vitkd": {"nkd": True}}
"""Measured beside the defaults."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="deit_ti", help="which (%(default)s)")
    parser.add_argument("--vit", default="vit_small_patch16_224", help="teacher of vitkd (%(default)s)")
    add_step_options(parser, teacher="regnety_002", repetitions=9)
    arguments = parser.parse_args()
    rows = compare(arguments)
    command = report.command_line("objectives", arguments, ("student", "vit", *STEP_OPTIONS))
    report.publish(rows, table(rows), arguments, mark="objectives", command=command, on=report.machine("timm"))


def compare(arguments: argparse.Namespace) -> list[Row]:
    """One row an objective. All take turns, step by step, so that a busy moment hits them alike."""
    import torch

    from cskd_pipeline.objectives import OBJECTIVES, create_objective
    from cskd_pipeline.replay import Canary, StoredTargets
    from cskd_pipeline.store import StoreReader

    on_cpu = arguments.device == "cpu"
    if on_cpu:
        torch.set_num_threads(1)
    # civt has a student and two stores of its own
    settings = [(name, {}) for name, kind in OBJECTIVES.items() if kind.teachers == 1] + [*VARIANTS.items()]
    with contextlib.ExitStack() as ended:
        folder = Path(ended.enter_context(tempfile.TemporaryDirectory()))
        cnn, vit = folder / "cnn", folder / "vit"
        for kind in (cnn, vit):
            kind.mkdir()
        stores = {
            cnn: prepare(cnn, arguments, targets=("hard", "soft", "truth", "features.pooled")),
            vit: prepare(vit, arguments, teacher=arguments.vit, targets=("soft", "truth", "features.tokens")),
        }
        steps = {}
        for name, values in settings:
            objective = create_objective(name, **values)
            made = vit if "features.tokens" in objective.needs else cnn
            job, batches = stores[made]
            reader = StoreReader(made / "labels.zarr")
            provider = StoredTargets(reader, needs=objective.needs, canary=Canary(0.01))
            ended.callback(provider.close)
            label = " ".join([name, *(f"{key}={value}" for key, value in values.items())])
            steps[label] = Steps(arguments.student, job, batches, provider, objective, arguments)
        times: dict[str, list[float]] = {label: [] for label in steps}
        for turn in range(WARM_UP + arguments.repetitions):
            for label, step in steps.items():
                began = time.process_time() if on_cpu else time.perf_counter()
                step()
                if not on_cpu:
                    torch.cuda.synchronize()
                if turn >= WARM_UP:
                    times[label].append((time.process_time() if on_cpu else time.perf_counter()) - began)
    ms = {label: 1e3 * statistics.median(values) for label, values in times.items()}
    return [
        {
            "bench": "objectives",
            "objective": label,
            "student": arguments.student,
            "device": arguments.device,
            "ms": ms[label],
            "spread": [1e3 * min(values), 1e3 * max(values)],
            "ratio_to_supervised": ms[label] / ms["supervised"],
        }
        for label, values in times.items()
    ]


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = ["| objective | student | device | ms a step | least to most | times `supervised` |", f"|{'---|' * 6}"]
    for row in rows:
        low, high = row["spread"]
        lines.append(
            f"| {row['objective']} | {row['student']} | {row['device']} | {row['ms']:.0f} | {low:.0f} to {high:.0f} | "
            f"{row['ratio_to_supervised']:.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
