r"""Crops per second through the whole of `precompute`, next to its teacher alone and its crops alone.

    python benchmarks/precompute.py --data DATA/tiny_imagenet --json rows.jsonl --write docs/benchmarks.md
    python benchmarks/precompute.py --data DATA --teachers regnety_160 --device cuda --precision bf16 --workers 15

Reading, the teacher, encoding and writing go on side by side, so the slower of the first two is the limit. On a CPU the
teacher gets one processor and the crops one (`--workers 1`). The three take turns, `--repetitions` times, on the same
crops; wall time, medians. The teacher has random weights, which take as long as any.

Beside it goes a process in which glibc is as it comes (`CSKD_ALLOCATOR=system`): the share of system time in both, and
how much more processor time it takes than the one that keeps freed memory, as commands do.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import report
from twins import Act, Spent, Twins, allocation

if TYPE_CHECKING:
    from cskd_pipeline.labelling.job import PrecomputeJob

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="shapes", help="data set, as the command line takes it (%(default)s)")
    parser.add_argument("--teachers", default="resnet18,mobilenetv2_100,test_resnet", help="of timm (%(default)s)")
    parser.add_argument("--size", type=int, default=112, help="side of crops (%(default)s)")
    parser.add_argument("--targets", default="hard,soft", help="encodings (%(default)s)")
    parser.add_argument("--precision", default="fp32", help="of the teacher (%(default)s)")
    parser.add_argument("--device", default="cpu", help="(%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes that make crops (%(default)s)")
    parser.add_argument("--crops", type=int, default=2048, help="of a measurement (%(default)s)")
    parser.add_argument("--block", type=int, default=512, help="crops a block (%(default)s)")
    parser.add_argument("--repetitions", type=int, default=5, help="of every measurement (%(default)s)")
    parser.add_argument("--plan-seconds", type=float, default=10, help="of the plan's own measurement (%(default)s)")
    report.add_output_options(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [compare(name, Path(folder), arguments) for name in arguments.teachers.split(",")]
    options = ("data", "teachers", "size", "targets", "precision", "device", "workers", "crops", "block", "repetitions")
    command = report.command_line("precompute", arguments, options)
    on = report.machine("timm", "simplejpeg", used="two")
    report.publish(rows, table(rows), arguments, mark="precompute", command=command, on=on)


def compare(name: str, folder: Path, arguments: argparse.Namespace) -> Row:
    """Takes turns; the first is a warm-up."""
    found: dict[str, list[dict[str, Spent]]] = {
        what: [] for what in ("plan", "crops", "teacher_only_crops", "loader_only_crops")
    }
    with Twins(prepare, name, folder, arguments) as twins:
        for turn in range(1 + arguments.repetitions):
            for what, spent in found.items():
                measured = twins.measure(what)
                if turn:
                    spent.append(measured)
        stored_bytes = twins.measure("bytes")["keep"].answer
    plans = [turn["keep"].answer for turn in found.pop("plan")]
    rates = {what: [turn["keep"].answer / turn["keep"].wall_s for turn in turns] for what, turns in found.items()}
    medians = {f"{what}_s": statistics.median(values) for what, values in rates.items()}
    limit = min(medians["teacher_only_crops_s"], medians["loader_only_crops_s"])
    return {
        "bench": "precompute",
        "teacher": name,
        "size": arguments.size,
        "targets": arguments.targets,
        **medians,
        "ratio_to_limit": medians["crops_s"] / limit,
        "planned_rate": statistics.median(
            plan[0] / rate
            for plan, rate in zip(plans, rates["crops"], strict=True)  # one after the other
        ),
        "planned_bytes": plans[-1][1] / stored_bytes,
        "spread": [min(rates["crops"]), max(rates["crops"])],
        **allocation(found["crops"]),
    }


@contextlib.contextmanager
def prepare(name: str, folder: Path, arguments: argparse.Namespace) -> Iterator[Act]:
    """Of a process that measures."""
    import torch
    from steps import random_teacher

    from cskd_pipeline.crops.recipe import RECIPES
    from cskd_pipeline.data import open_split
    from cskd_pipeline.labelling.job import PrecomputeJob
    from cskd_pipeline.labels import encodings_from_json

    if arguments.device == "cpu":
        torch.set_num_threads(1)
    index = open_split(arguments.data, "train")
    recipe = dataclasses.replace(RECIPES["deit"], size=arguments.size)
    teacher = random_teacher(name, folder, classes=len(index.classes), arguments=arguments)
    sizes = {"positions": teacher.positions, "classes": len(index.classes)}
    forms = encodings_from_json(dict.fromkeys(arguments.targets.split(","), sizes))
    job = PrecomputeJob(index, recipe, teacher, forms, block=arguments.block)
    blocks = job.header.blocks  # small sets are gone through under several seeds
    units = [divmod(number, blocks) for number in range(-(-arguments.crops // arguments.block))]
    crops = sum(len(job.header.rows(block)) for _, block in units)
    actions: dict[str, Callable[[], Any]] = {
        "crops": lambda: whole(job, units, folder, workers=arguments.workers)[0],
        "bytes": lambda: whole(job, units, folder, workers=arguments.workers)[1],
        "plan": lambda: planned(job, workers=arguments.workers, seconds=arguments.plan_seconds),
        "teacher_only_crops": lambda: teacher_only(job, crops),
        "loader_only_crops": lambda: loader_only(job, units, workers=arguments.workers),
    }
    yield lambda what: actions[what]()


def whole(job: PrecomputeJob, units: list[tuple[int, int]], folder: Path, *, workers: int) -> tuple[int, float]:
    """Everything, into a store of its own; crops, and bytes of one."""
    from cskd_pipeline.labelling.job import compute
    from cskd_pipeline.runtime.ahead import ahead
    from cskd_pipeline.store import StoreReader, StoreWriter, summarise

    crops = 0
    with tempfile.TemporaryDirectory(dir=folder) as store:
        writer = StoreWriter(Path(store) / "labels.zarr", job.header)
        blocks = compute(job, job.header, units, workers=workers)
        for made in ahead(blocks, depth=1, device=job.teacher.device):
            writer.write_block(*made.unit, made.records, made.crop_crc, versions={}, fidelity=made.fidelity)
            crops += len(made.crop_crc)
        return crops, summarise(StoreReader(writer.storage)).bytes_per_crop["total"]


def planned(job: PrecomputeJob, *, workers: int, seconds: float) -> tuple[float, float]:
    """Crops per second and bytes of a crop, as `plan` says them for the store's usual blocks."""
    from cskd_pipeline.labelling.measuring import measure_job

    found = measure_job(dataclasses.replace(job, block=None), seed=100, workers=workers, seconds=seconds)
    return found.crops_s, sum(found.bytes_per_crop.values())


def teacher_only(job: PrecomputeJob, crops: int) -> int:
    """The teacher on crops that are there: not zeros, which some kernels are quicker with."""
    import torch

    size, chunk = job.recipe.size, job.teacher.spec.chunk
    pixels = torch.randn(chunk, 3, size, size, generator=torch.Generator().manual_seed(0)).to(job.teacher.device)
    for _ in range(crops // chunk):
        job.teacher(pixels)
    if job.teacher.device.type == "cuda":
        torch.cuda.synchronize()
    return crops // chunk * chunk


def loader_only(job: PrecomputeJob, units: list[tuple[int, int]], *, workers: int) -> int:
    """Crops as the teacher wants them, for none."""
    from cskd_pipeline.loading import CropLoader, block_batches

    spec, device = job.teacher.spec, job.teacher.device
    wanted = (
        batch
        for seed, block in units
        for batch in block_batches(job.recipe, seed, job.header.rows(block), total=len(job.index), batch=spec.chunk)
    )
    crops = 0
    with CropLoader(job.index, job.recipe, workers=workers, pin_memory=device.type == "cuda") as loader:
        for batch in loader.load(wanted):
            batch.pixels(job.recipe, mean=spec.mean, std=spec.std, device=device)
            crops += len(batch)
    return crops


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| teacher | size | targets | crops/s | least to most | teacher alone | crops alone | of the limit "
        "| planned / measured crops/s | planned / stored bytes | system time, glibc as it comes | system time "
        "| times as fast | peak of memory |",
        f"|{'---|' * 14}",
    ]
    for row in rows:
        low, high = row["spread"]
        lines.append(
            f"| {row['teacher']} | {row['size']} | {row['targets']} | {row['crops_s']:.0f} | {low:.0f} to {high:.0f} | "
            f"{row['teacher_only_crops_s']:.0f} | {row['loader_only_crops_s']:.0f} | {row['ratio_to_limit']:.2f} | "
            f"{row['planned_rate']:.2f} | {row['planned_bytes']:.2f} | "
            f"{row['system_share_as_it_comes']:.1%} | {row['system_share']:.1%} | {row['faster']:.2f} | "
            f"{row['peak_ratio']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
