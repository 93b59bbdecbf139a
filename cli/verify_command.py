"""`cskd-pipeline verify`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cskd_pipeline.errors import DataError, MismatchError

from .config_file import config_option
from .options import (
    data_options,
    json_option,
    machine_options,
    make_teacher,
    open_data,
    require_context,
    require_file,
    say,
    worker_count,
)

if TYPE_CHECKING:
    from cskd_pipeline.precompute import PrecomputeJob
    from cskd_pipeline.store import StoreReader


@click.command(short_help="Check a label store, by itself or against the teacher.")
@click.argument("store", type=click.Path(path_type=Path))
@data_options(required=False)
@click.option(
    "--teacher-weights",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The teacher's weights (.safetensors, .pth).  [default: timm's pretrained ones]",
)
@click.option("--crops", type=click.IntRange(1), default=512, show_default=True, help="How many crops to recompute.")
@click.option("--key", type=click.IntRange(0), default=0, show_default=True, help="Another number draws other crops.")
@machine_options
@config_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    store: Path,
    data: str | None,
    data_root: str | None,
    teacher_weights: Path | None,
    crops: int,
    key: int,
    device: str | None,
    workers: str,
    as_json: bool,
) -> None:
    """Check STORE against its checksums, and with --data against the teacher.

    Every file is compared with the checksum taken when it was written. With --data, random crops are made and
    labelled again, by the teacher that the store names; give --teacher-weights where they are not timm's own.
    The exit code is 3 where anything differs.
    """
    from cskd_pipeline.store import StoreReader, check_files

    if data is None:
        require_context(ctx, ("teacher_weights", "crops", "key", "device", "workers", "data_root"), without="--data")
    require_file("--teacher-weights", teacher_weights)
    reader = StoreReader(store)
    processes = worker_count(workers)
    job = None if data is None else _job(reader, data, data_root, teacher_weights, device=device)
    blocks, bad = 0, []
    for _, _, found in check_files(reader):
        blocks += 1
        bad += found
    report: dict[str, Any] = {"blocks": blocks, "bad_files": [dataclasses.asdict(file) for file in bad]}
    if not as_json:
        for file in bad:
            click.echo(f"seed {file.seed} block {file.block}: {file.path}: {file.found}")
        click.echo(f"{blocks} blocks checked, bad files: {len(bad)}")
        for seed in sorted({*reader.seeds()} - {*reader.complete_seeds()}):
            click.echo(f"seed {seed} is incomplete: {len(reader.committed(seed))} of {reader.header.blocks} blocks")
        if job is not None and bad:
            click.echo("no crop is recomputed while files are bad")
    if not blocks:
        raise DataError(f"{store} holds no committed block; there is nothing to verify")
    failures = [f"bad files: {len(bad)}"] if bad else []
    if job is not None and not bad:
        from cskd_pipeline.precompute import recompute

        say(f"recomputing about {crops} crops with {job.teacher.spec.model}")
        again = recompute(job, reader, crops=crops, key=key, workers=processes)
        checked, differences = again.crops, again.differences
        report |= {
            "crops": checked,
            "differences": [dataclasses.asdict(d) for d in differences],
            "fidelity": again.fidelity,
        }
        if not as_json:
            for name, values in again.fidelity.items():
                measured = ", ".join(f"{what} {value:.6g}" for what, value in values.items() if what != "crops")
                click.echo(f"fidelity of {name} targets: {measured} (on {values['crops']:,} crops)")
            for difference in differences[:20]:
                click.echo(f"seed {difference.seed} sample {difference.sample}: {difference.what}: {difference.found}")
            click.echo(f"{checked} crops recomputed, differences: {len(differences)}")
        wrong = [name for name, values in again.fidelity.items() if values.get("agreement", 1) < 1]
        failures += [f"{name} targets are not the argmax of the teacher's logits" for name in wrong]
        if differences:
            failures.append(f"differences: {len(differences)} in {checked} recomputed crops{_elsewhere(reader, job)}")
    if as_json:
        click.echo(json.dumps(report))
    if failures:
        raise DataError(f"{store} failed verification: {' and '.join(failures)}")


def _elsewhere(reader: StoreReader, job: PrecomputeJob) -> str:
    """What is not as it was when the store was written, and may explain a difference."""
    from cskd_pipeline.precompute.versions import versions
    from cskd_pipeline.store import summarise

    now = versions(job.teacher.device)
    changed = {
        f"{name} {then.get(name)} (now {value})"
        for then in summarise(reader).writers
        for name, value in now.items()
        if then.get(name) != value
    }
    return f"; the store was written with {', '.join(sorted(changed))}" if changed else ""


def _job(
    reader: StoreReader, data: str, data_root: str | None, teacher_weights: Path | None, *, device: str | None
) -> PrecomputeJob:
    """What would make the store again.

    Raises:
        MismatchError: data or weights are not those that made it.
    """
    from cskd_pipeline.crops.recipe import CropRecipe
    from cskd_pipeline.precompute import PrecomputeJob
    from cskd_pipeline.train import choose_device

    header = reader.header
    spec = header.teacher
    given = {
        "teacher": spec["model"],
        "teacher_args": tuple(spec["args"].items()),
        "teacher_precision": spec["precision"],
        "channels_last": spec["channels_last"],
        "compile_teacher": spec["compile"],
        "chunk": spec["chunk"],
        "global_source": spec["global_source"],
        "teacher_weights": teacher_weights,
    }
    place = choose_device(device)
    index = open_data(data, header.data["split"], data_root)
    recipe = CropRecipe.from_json(header.recipe)
    try:
        teacher = make_teacher(given, classes=header.data["classes"], size=recipe.size, device=place)
    except MismatchError as error:
        if teacher_weights is None:
            raise MismatchError(
                f"timm's own weights do not fit {reader.path} ({error}); give --teacher-weights, the file whose digest "
                f"is {spec['weights']}"
            ) from error
        raise
    job = PrecomputeJob(index, recipe, teacher, reader.encodings, header.block)
    remedy = "give the --data and --teacher-weights that it was made of"
    header.require_same(job.header, where=str(reader.path), remedy=remedy)
    return job
