"""The command `cskd-pipeline`."""

from __future__ import annotations

import contextlib
import errno
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import click

import cskd_pipeline
from cskd_pipeline.errors import CskdError, RetryError, StoppedError, UsageError

from .add_targets import add_targets
from .demo import demo
from .eval import evaluate
from .export import export
from .export_labels import export_labels
from .index import index
from .inspect import inspect
from .options import VERBOSE
from .pack import pack
from .plan import plan
from .precompute import precompute
from .repair import repair
from .report import report
from .standard_streams import OutputError, settle_standard_streams
from .status import status
from .train import train
from .verify import verify

_STORAGE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE}
)
"""What storage and permissions answer, wherever that comes up; any other OSError is a bug."""


class _Group(click.Group):
    """A user's error ends the command with one line on stderr and the exit code of its kind."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which they were added, which is that of the work."""
        return list(self.commands)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command; see `invoke` for its errors. What cannot even be printed of --help is one, too."""
        settle_standard_streams()
        try:
            return super().main(*args, **kwargs)
        except OutputError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(error.exit_code)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _terminated_as_interrupted():
                return super().invoke(ctx)
        except CskdError as error:
            listed = ctx.meta.get(VERBOSE, False)
            hint = f" (--verbose lists all {len(error.details)})" if error.details and not listed else ""
            click.echo(f"Error: {' '.join(str(error).split())}{hint}", err=True)
            for line in error.details if listed else ():
                click.echo(f"  {line}", err=True)
            ctx.exit(error.exit_code)
        except OSError as error:
            if error.errno not in _STORAGE:
                raise
            what = f" {error.filename}" if error.filename else ""
            click.echo(
                f"Error: cannot use{what} ({error.strerror}); mend that and run the same command again", err=True
            )
            ctx.exit(RetryError.exit_code)
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":  # torch's, of a GPU
                raise
            reason = (str(error).split(". ") or [""])[0]
            remedy = "lower --chunk, --batch-size or --workers, or raise --accumulation"
            click.echo(f"Error: out of memory ({' '.join(reason.split())}); {remedy}", err=True)
            ctx.exit(UsageError.exit_code)
        except KeyboardInterrupt:
            click.echo("Error: interrupted; what was finished is kept, run the same command again", err=True)
            ctx.exit(StoppedError.exit_code)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM, with which schedulers announce a preemption, end the command as cleanly as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "CSKD", "max_content_width": 110},
)
@click.version_option(cskd_pipeline.__version__, prog_name="cskd-pipeline")
def main() -> None:
    """Distil vision transformers from a CNN teacher that runs once.

    `precompute` stores the teacher's dense labels of augmented crops; `train` replays those crops without a teacher.

    Options may also come from the environment (CSKD_TRAIN_EPOCHS=100 is --epochs 100 of `train`; several values of
    one, such as CSKD_TRAIN_LABELS, stand on lines of their own), from a YAML file (--config) or from a preset; what
    comes first in this list wins, and the command line wins over all.

    \b
    Exit codes:
       0  done
       1  a bug in cskd-pipeline: please report it
       2  wrong usage
       3  bad, missing or damaged data, or a verification that failed
       4  things that do not belong together: store and request, run and settings
      75  stopped, or storage refused: run it again (train: --resume)
    """


for command in (
    plan,
    precompute,
    train,
    evaluate,
    export,
    index,
    pack,
    status,
    inspect,
    report,
    verify,
    repair,
    add_targets,
    export_labels,
    demo,
):
    main.add_command(command)
