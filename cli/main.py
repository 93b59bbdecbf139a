"""The command `cskd-pipeline`."""

from __future__ import annotations

from typing import Any

import click

import cskd_pipeline
from cskd_pipeline.errors import CskdError, StoppedError

from .demo_command import demo
from .eval_command import evaluate
from .export_command import export
from .index_command import index
from .inspect_command import inspect
from .precompute_command import precompute
from .status_command import status
from .train_command import train
from .verify_command import verify


class _Group(click.Group):
    """A user's error ends the command with one line on stderr and the exit code of its kind."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CskdError as error:
            click.echo(f"Error: {' '.join(str(error).split())}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("Error: interrupted; what was finished is kept, run the same command again", err=True)
            ctx.exit(StoppedError.exit_code)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "CSKD", "max_content_width": 110},
)
@click.version_option(cskd_pipeline.__version__, prog_name="cskd-pipeline")
def main() -> None:
    """Distil vision transformers from a CNN teacher that runs once.

    `precompute` stores the teacher's dense labels of augmented crops; `train` replays those crops without a teacher.

    Options may also come from a YAML file (--config) or from the environment (CSKD_COMMAND_OPTION). Exit codes:
    0 done, 2 wrong usage, 3 bad or damaged data, 4 store and request do not match, 75 try again, 1 a bug.
    """


for command in (precompute, train, evaluate, export, index, inspect, status, verify, demo):
    main.add_command(command)
