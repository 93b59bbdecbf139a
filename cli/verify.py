"""`cskd-pipeline verify`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from cskd_pipeline.errors import DataError
from cskd_pipeline.runs.verify import VerifyRequest
from cskd_pipeline.runs.verify import verify as run

from .options import json_option, request_command
from .terminal import terminal

if TYPE_CHECKING:
    from cskd_pipeline.runs.verify import Verified

SHOWN = 20


@request_command(VerifyRequest, "Check a label store, by itself or against the teacher.")
@click.argument("store")
@json_option
def verify(request: VerifyRequest, store: str, as_json: bool) -> None:
    """Check STORE against its checksums, and with --recompute against the teacher.

    Every file is compared with the checksum taken when it was written; files that do not belong to the store are
    named too. With --recompute, --data or --crops, random crops are made and labelled again, by the teacher that the
    store names; give --teacher-weights where they are not timm's own. The exit code is 3 where anything differs or is
    missing; `repair` mends it.
    """
    with terminal() as watch:
        found = run(store, request, progress=watch)
    if as_json:
        click.echo(json.dumps(found.to_json()))
    else:
        _show(found)
    if found.failures:
        raise DataError(f"{store} failed verification: {' and '.join(found.failures)}")


def _show(found: Verified) -> None:
    for file in found.bad:
        block = "" if file.block is None else f"seed {file.seed} block {file.block}: "
        click.echo(f"{block}{file.path}: {file.found}")
    click.echo(f"{found.blocks} blocks checked, bad files: {len(found.bad)}")
    for seed, count in found.incomplete.items():
        click.echo(f"seed {seed} is incomplete: {count} of {found.blocks_per_seed} blocks are missing")
    again = found.recomputed
    if again is None:
        return
    for name, values in again.fidelity.items():
        measured = ", ".join(f"{what} {value:.6g}" for what, value in values.items() if what != "crops")
        click.echo(f"fidelity of {name} targets: {measured} (on {values['crops']:,} crops)")
    for difference in again.differences[:SHOWN]:
        click.echo(f"seed {difference.seed} sample {difference.sample}: {difference.what}: {difference.found}")
    click.echo(f"{again.crops} crops recomputed, differences: {len(again.differences)}")
