r"""Time of a training step on stored labels, next to the same student without distillation and with a live teacher.

    python benchmarks/steps.py --data 'DATA/imagenet_sample/*.tar' --json steps.jsonl --write docs/benchmarks.md
    python benchmarks/steps.py --data DATA --device cuda --size 224 --batch 512 --precision bf16 --teacher regnety_160

A step is everything from rendered crops on: finishing them, gathering and moving targets, forward, loss, backward, the
optimizer and the average of weights; `benchmarks/replay.py` measures what comes before. All modes train the same
model, with both heads, on the same crops in turn: on true labels (`none`), by CSKD on stored hard targets (`stored`)
and by CSKD on those of the teacher (`live`). `timm` is what timm has for it, `timm.task.TokenDistillationTask` with the
same teacher, live: hard targets of the whole crop alone, with timm's optimizer and average. The teacher has random
weights, which take as long as any. Times are medians of processor time on one core of a CPU, and of wall time on a GPU.

Beside it goes a process in which glibc is as it comes (`CSKD_ALLOCATOR=system`), step by step: the share of system time
in both, and how much more processor time it takes than the one that keeps freed memory, as commands do.

What is possible at best is that a live teacher costs its own time and stored labels cost none: the sum of the times
of `none` and of the teacher alone, over that of `none`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import itertools
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import report
from twins import Act, Spent, Twins, allocation

if TYPE_CHECKING:
    from cskd_pipeline.batch import TrainBatch
    from cskd_pipeline.crops.batch import CropBatch
    from cskd_pipeline.labelling.job import PrecomputeJob
    from cskd_pipeline.models.teacher.teacher import Teacher
    from cskd_pipeline.objectives import Objective
    from cskd_pipeline.replay import TargetProvider

BATCHES = 4
"""Different ones that steps go through."""
WARM_UP = 2
MODES = ("none", "stored", "live", "timm")
STEP_OPTIONS = ("data", "teacher", "size", "batch", "precision", "device", "repetitions")
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", default="deit_ti,deit_s,deit_b", help="which (%(default)s)")
    add_step_options(parser, teacher="regnety_016", repetitions=7)
    arguments = parser.parse_args()
    with Twins(modes, arguments) as twins:
        rows = [row for name in arguments.students.split(",") for row in compare(name, twins, arguments)]
    command = report.command_line("steps", arguments, ("students", *STEP_OPTIONS))
    report.publish(rows, table(rows), arguments, mark="steps", command=command, on=report.machine("timm"))


def add_step_options(parser: argparse.ArgumentParser, *, teacher: str, repetitions: int) -> None:
    """Add `STEP_OPTIONS` and those of `report`, with these defaults."""
    parser.add_argument("--data", default="shapes", help="data set, as the command line takes it (%(default)s)")
    parser.add_argument("--teacher", default=teacher, help="of timm; with random weights (%(default)s)")
    parser.add_argument("--size", type=int, default=96, help="side of crops (%(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="crops a step (%(default)s)")
    parser.add_argument("--precision", default="fp32", help="of student and teacher (%(default)s)")
    parser.add_argument("--device", default="cpu", help="(%(default)s)")
    parser.add_argument("--repetitions", type=int, default=repetitions, help="steps of each kind (%(default)s)")
    report.add_output_options(parser)


def prepare(
    folder: Path,
    arguments: argparse.Namespace,
    *,
    teacher: str | None = None,
    targets: Sequence[str] = ("hard", "soft", "truth"),
) -> tuple[PrecomputeJob, list[CropBatch]]:
    """A teacher, a store of its labels at `folder / "labels.zarr"`, and crops of its first block in batches."""
    import numpy as np
    import torch

    from cskd_pipeline.crops.recipe import RECIPES
    from cskd_pipeline.data import open_split
    from cskd_pipeline.labelling.calibration import with_channels
    from cskd_pipeline.labelling.job import PrecomputeJob, compute
    from cskd_pipeline.labels.choice import make_encodings
    from cskd_pipeline.loading import CropLoader, block_batches
    from cskd_pipeline.store import StoreWriter

    index = open_split(arguments.data, "train")
    recipe = dataclasses.replace(RECIPES["deit"], size=arguments.size)
    runs = random_teacher(teacher or arguments.teacher, folder, classes=len(index.classes), arguments=arguments)
    settings = with_channels({name: {} for name in targets}, {}, index=index, recipe=recipe, teacher=runs)
    forms = make_encodings(settings, positions=runs.positions, classes=len(index.classes))
    block = -(-BATCHES * arguments.batch // recipe.group) * recipe.group
    job = PrecomputeJob(index, recipe, runs, forms, block=block)
    header = job.header
    (made,) = compute(job, header, [(0, 0)], workers=0)
    writer = StoreWriter(folder / "labels.zarr", header)
    for number in range(header.blocks):  # all like the first, which is the one in use
        rows = np.arange(len(header.rows(number))) % len(made.crop_crc)
        records = {name: records.take(rows) for name, records in made.records.items()}
        writer.write_block(0, number, records, made.crop_crc[rows], versions={})
    loader = CropLoader(index, recipe, workers=0, pin_memory=torch.device(arguments.device).type == "cuda")
    wanted = block_batches(recipe, 0, header.rows(0), total=len(index), batch=arguments.batch)
    return job, [batch for batch in loader.load(wanted) if len(batch) == arguments.batch][:BATCHES]


def random_teacher(name: str, folder: Path, *, classes: int, arguments: argparse.Namespace) -> Teacher:
    import timm
    import torch
    from safetensors.torch import save_file

    from cskd_pipeline.models.teacher.load import load_teacher

    torch.manual_seed(0)
    weights = folder / "teacher.safetensors"
    args = {"img_size": arguments.size} if name.startswith("vit_") else {}
    save_file(timm.create_model(name, num_classes=classes, **args).state_dict(), weights)
    return load_teacher(
        name,
        args=args,
        classes=classes,
        size=arguments.size,
        device=torch.device(arguments.device),
        weights=weights,
        precision=arguments.precision,
    )


def compare(name: str, twins: Twins, arguments: argparse.Namespace) -> list[Row]:
    """One row a mode. All modes take turns, step by step, so that a busy moment hits them alike."""
    found: dict[str, list[dict[str, Spent]]] = {mode: [] for mode in (*MODES, "teacher")}
    for turn in range(WARM_UP + arguments.repetitions):
        for mode, spent in found.items():
            measured = twins.measure(name, mode)
            if turn >= WARM_UP:
                spent.append(measured)
    on_cpu = arguments.device == "cpu"
    times = {
        mode: [1e3 * (turn["keep"].processor_s if on_cpu else turn["keep"].wall_s) for turn in turns]
        for mode, turns in found.items()
    }
    ms = {mode: statistics.median(values) for mode, values in times.items()}
    possible = (ms["none"] + ms["teacher"]) / ms["none"]
    return [
        {
            "bench": "steps",
            "student": name,
            "mode": mode,
            "device": arguments.device,
            "ms": ms[mode],
            "crops_s": 1e3 * arguments.batch / ms[mode],
            "ratio_to_none": ms[mode] / ms["none"],
            "spread": [min(times[mode]), max(times[mode])],
            "teacher_ms": ms["teacher"],
            "speedup_over_live": ms["live"] / ms[mode],
            "speedup_over_timm": ms["timm"] / ms[mode],
            "share_of_possible": ms["live"] / ms[mode] / possible,
            **allocation(found[mode]),
        }
        for mode in MODES
    ]


@contextlib.contextmanager
def modes(arguments: argparse.Namespace) -> Iterator[Act]:
    """Of a process that measures: a step of a student in a mode, or its teacher alone."""
    import torch

    from cskd_pipeline.models.teacher.live import LiveTargets
    from cskd_pipeline.objectives import create_objective
    from cskd_pipeline.replay import Canary, NoTargets, StoredTargets
    from cskd_pipeline.store import StoreReader

    if arguments.device == "cpu":
        torch.set_num_threads(1)
    cskd = create_objective("cskd")
    ended = contextlib.ExitStack()
    folder = Path(ended.enter_context(tempfile.TemporaryDirectory()))
    job, batches = prepare(folder, arguments)
    stored = StoredTargets(StoreReader(folder / "labels.zarr"), needs=cskd.needs, canary=Canary(0.01))
    ended.callback(stored.close)
    providers: dict[str, tuple[TargetProvider, Objective]] = {
        "none": (NoTargets(), create_objective("supervised")),
        "stored": (stored, cskd),
        "live": (LiveTargets(job.teacher, job.recipe), cskd),
    }

    @functools.lru_cache(maxsize=1)
    def steps(name: str) -> dict[str, Steps]:
        ours = {mode: Steps(name, job, batches, *how, arguments) for mode, how in providers.items()}
        return {**ours, "timm": TimmSteps(name, job, batches, *providers["none"], arguments)}

    def act(name: str, mode: str) -> None:
        if mode == "teacher":
            steps(name)["live"].teacher_alone()
        else:
            steps(name)[mode]()
        if arguments.device != "cpu":
            torch.cuda.synchronize()

    with ended:
        yield act


class Steps:
    """Training steps of one student in one mode, one a call."""

    def __init__(
        self,
        name: str,
        job: PrecomputeJob,
        batches: list[CropBatch],
        provider: TargetProvider,
        objective: Objective,
        arguments: argparse.Namespace,
    ) -> None:
        import torch

        from cskd_pipeline.models.normalisation import normalisation
        from cskd_pipeline.models.student import add_adapter, create_student
        from cskd_pipeline.training.config import TrainConfig
        from cskd_pipeline.training.learner import Learner

        self.device = torch.device(arguments.device)
        student = create_student(
            name,
            classes=len(job.index.classes),
            grid=job.teacher.grid if objective.dense else None,
            args={"img_size": arguments.size},
            drop_path=0.1,
            distillation=True,
            layers=objective.layers,
        )
        if objective.layers:
            layers = objective.layers if "features.tokens" in objective.needs else ()
            add_adapter(student, functools.partial(objective.adapter, teacher=job.teacher.features(layers)), seed=0)
        config = TrainConfig(
            epochs=10_000, warmup_epochs=0, batch_size=arguments.batch, lr=1e-4, precision=arguments.precision
        )
        self.job, self.provider, self.objective = job, provider, objective
        self.mean, self.std = normalisation(student.model)
        self.learner = Learner(student, objective, config, updates_per_epoch=1000, device=self.device)
        self.learner.student.train()
        provider.prepare([0], ratio_steps=objective.ratio_steps(1, 2))
        self.crops = itertools.cycle(batches)
        self.done = 0

    def __call__(self) -> None:
        self.learner.update(self.micro_batches(), update=self.done)
        self.done += 1

    def micro_batches(self) -> Iterator[TrainBatch]:
        from cskd_pipeline.batch import TrainBatch

        recipe = self.job.recipe
        batch = next(self.crops).on(self.device, recipe)
        yield TrainBatch(
            pixels_B3SS=batch.pixels(recipe, mean=self.mean, std=self.std, device=self.device),
            labels=batch.labels(recipe, device=self.device),
            targets=self.provider.targets(batch, device=self.device),
        )

    def teacher_alone(self) -> None:
        recipe, teacher = self.job.recipe, self.job.teacher
        pixels = next(self.crops).pixels(recipe, mean=self.mean, std=self.std, device=self.device)
        teacher(pixels)


class TimmSteps(Steps):
    """The same model on the same crops, by timm's own task for students with a distillation token."""

    def __init__(
        self,
        name: str,
        job: PrecomputeJob,
        batches: list[CropBatch],
        provider: TargetProvider,
        objective: Objective,
        arguments: argparse.Namespace,
    ) -> None:
        import timm
        import torch
        from timm.loss import SoftTargetCrossEntropy
        from timm.optim import create_optimizer_v2
        from timm.task import TokenDistillationTask

        super().__init__(name, job, batches, provider, objective, arguments)
        student = self.learner.student.model
        teacher = timm.create_model(arguments.teacher, num_classes=len(job.index.classes)).to(self.device)
        self.task = TokenDistillationTask(
            student.requires_grad_(True),
            teacher.requires_grad_(False),
            SoftTargetCrossEntropy(),
            distill_type="hard",
            task_loss_weight=0.5,
            device=self.device,
            verbose=False,
        )
        self.task.train()
        self.task.setup_ema(decay=0.99996)
        self.optimizer = create_optimizer_v2(student, opt="adamw", lr=1e-4, weight_decay=0.05)
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(arguments.precision)

    def __call__(self) -> None:
        import torch

        batch = next(self.micro_batches())
        labels_BC = batch.labels.probabilities_BC(len(self.job.index.classes))
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            loss = self.task(batch.pixels_B3SS, labels_BC)["loss"]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.task.update_ema()
        float(loss.detach())  # as ours looks at every loss


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| student | mode | device | ms a step | least to most | crops/s | times `none` | faster than live "
        "| faster than timm | of the possible | system time, glibc as it comes | system time | times as fast |",
        f"|{'---|' * 13}",
    ]
    for row in rows:
        low, high = row["spread"]
        gained = (
            f"{row['speedup_over_live']:.2f} x | {row['speedup_over_timm']:.2f} x | {row['share_of_possible']:.2f}"
            if row["mode"] == "stored"
            else " |  | "
        )
        lines.append(
            f"| {row['student']} | {row['mode']} | {row['device']} | {row['ms']:.0f} | {low:.0f} to {high:.0f} | "
            f"{row['crops_s']:.1f} | {row['ratio_to_none']:.3f} | {gained} | {row['system_share_as_it_comes']:.1%} | "
            f"{row['system_share']:.1%} | {row['faster']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
