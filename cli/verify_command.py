"""`cskd-pipeline verify`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from cskd_pipeline.errors import DataError

from .config_file import config_option
from .options import data_options, json_option, machine_options, make_teacher, open_data, say, worker_count


@click.command()
@click.argument("store", type=click.Path(path_type=Path))
@data_options(required=False)
@click.option("--teacher-weights", type=click.Path(path_type=Path), help="The teacher's weights, .safetensors or .pth.")
@click.option("--crops", type=click.IntRange(1), default=512, show_default=True, help="How many crops to recompute.")
@click.option("--key", type=int, default=0, show_default=True, help="Which random crops.")
@machine_options
@json_option
@config_option
def verify(
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
    """Check STORE: the checksums of every shard, and with --data random crops against the teacher.

    The teacher is taken from the store (its name, arguments and way of running); give --teacher-weights where they
    are not timm's own. Exit code 3 where anything differs.
    """
    from cskd_pipeline.store import StoreReader, check_files

    reader = StoreReader(store)
    blocks, bad = 0, []
    for _, _, found in check_files(reader):
        blocks += 1
        bad += found
    report: dict[str, Any] = {"blocks": blocks, "bad_files": [dataclasses.asdict(file) for file in bad]}
    if not as_json:
        for file in bad:
            click.echo(f"seed {file.seed} block {file.block}: {file.path}: {file.found}")
        click.echo(f"{blocks} blocks checked, {len(bad)} bad files")
    failures = [f"{len(bad)} bad files"] if bad else []
    if data is not None and not bad:
        checked, differences = _recompute(
            reader, data, data_root, teacher_weights, crops=crops, key=key, device=device, workers=workers
        )
        report |= {"crops": checked, "differences": [dataclasses.asdict(d) for d in differences]}
        if not as_json:
            for difference in differences[:20]:
                click.echo(f"seed {difference.seed} sample {difference.sample}: {difference.what}: {difference.found}")
            click.echo(f"{checked} crops recomputed, {len(differences)} differences")
        if differences:
            failures.append(f"{len(differences)} differences in {checked} recomputed crops")
    if as_json:
        click.echo(json.dumps(report))
    if failures:
        raise DataError(f"{store} failed verification: {' and '.join(failures)}")


def _recompute(
    reader: Any,
    data: str,
    data_root: str | None,
    teacher_weights: Path | None,
    *,
    crops: int,
    key: int,
    device: str | None,
    workers: str,
) -> Any:
    from cskd_pipeline.crops.recipe import CropRecipe
    from cskd_pipeline.precompute import PrecomputeJob, recompute
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
    index = open_data(data, header.data["split"], data_root)
    recipe = CropRecipe.from_json(header.recipe)
    say(f"recomputing about {crops} crops with {spec['model']}")
    teacher = make_teacher(given, classes=header.data["classes"], size=recipe.size, device=choose_device(device))
    job = PrecomputeJob(index, recipe, teacher, reader.encoding, header.block)
    return recompute(job, reader, crops=crops, key=key, workers=worker_count(workers))
