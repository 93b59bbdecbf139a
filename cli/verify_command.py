"""`cskd-pipeline verify`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cskd_pipeline.errors import DataError

from .config_file import config_option
from .options import (
    json_option,
    machine_options,
    require_context,
    require_file,
    say,
    worker_count,
)
from .store_job import source_options, store_job

if TYPE_CHECKING:
    from cskd_pipeline.labelling import PrecomputeJob
    from cskd_pipeline.store import StoreReader


@click.command(short_help="Check a label store, by itself or against the teacher.")
@click.argument("store")
@source_options
@click.option("--crops", type=click.IntRange(1), default=512, show_default=True, help="How many crops to recompute.")
@click.option("--key", type=click.IntRange(0), default=0, show_default=True, help="Another number draws other crops.")
@click.option("--allow-incomplete", is_flag=True, help="Seeds with missing blocks are no failure.")
@machine_options
@config_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    store: str,
    data: str | None,
    data_root: str | None,
    teacher_weights: Path | None,
    crops: int,
    key: int,
    device: str | None,
    workers: str,
    allow_incomplete: bool,
    as_json: bool,
) -> None:
    """Check STORE against its checksums, and with --data against the teacher.

    Every file is compared with the checksum taken when it was written. With --data, random crops are made and
    labelled again, by the teacher that the store names; give --teacher-weights where they are not timm's own.
    Files that are none of the store's are named too. The exit code is 3 where anything differs or is missing;
    `repair` makes it well.
    """
    from cskd_pipeline.seeds import format_seeds
    from cskd_pipeline.store import StoreReader, check_files, check_tree, summarise

    if data is None:
        require_context(ctx, ("teacher_weights", "crops", "key", "device", "workers", "data_root"), without="--data")
    require_file("--teacher-weights", teacher_weights)
    reader = StoreReader(store)
    processes = worker_count(workers)
    job = None if data is None else store_job(reader, data, data_root, teacher_weights, device=device)
    blocks, bad = 0, [*check_tree(reader)]
    for _, _, found in check_files(reader):
        blocks += 1
        bad += found
    missing = {seed: reader.header.blocks - len(done) for seed, done in reader.begun().items()}
    incomplete = {seed: count for seed, count in missing.items() if count}
    report: dict[str, Any] = {"blocks": blocks, "bad_files": [dataclasses.asdict(file) for file in bad]}
    report |= {"incomplete": incomplete, "digest": summarise(reader).digest}
    if not as_json:
        for file in bad:
            block = "" if file.block is None else f"seed {file.seed} block {file.block}: "
            click.echo(f"{block}{file.path}: {file.found}")
        click.echo(f"{blocks} blocks checked, bad files: {len(bad)}")
        for seed, count in incomplete.items():
            click.echo(f"seed {seed} is incomplete: {count} of {reader.header.blocks} blocks are missing")
        if job is not None and bad:
            click.echo("no crop is recomputed while files are bad")
    if not blocks:
        raise DataError(f"{store} holds no committed block; there is nothing to verify")
    failures = [f"bad files: {len(bad)}"] if bad else []
    if incomplete and not allow_incomplete:
        failures.append(
            f"{len(incomplete)} incomplete seeds ({format_seeds([*incomplete])}; precompute finishes them, "
            "--allow-incomplete lets them pass)"
        )
    if job is not None and not bad:
        from cskd_pipeline.labelling import recompute

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
    from cskd_pipeline.labelling.versions import versions
    from cskd_pipeline.store import summarise

    now = versions(job.teacher.device)
    changed = {
        f"{name} {then.get(name)} (now {value})"
        for then in summarise(reader).writers
        for name, value in now.items()
        if then.get(name) != value
    }
    return f"; the store was written with {', '.join(sorted(changed))}" if changed else ""
