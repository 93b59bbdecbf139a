"""Options made from the settings of a request, in groups, and those that every command words alike."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cskd_pipeline.errors import UsageError
from cskd_pipeline.settings import Group, Kind, Named, Settings, kinds

from .config_file import config_option
from .yaml_text import KeyValue

Command = TypeVar("Command", bound=Callable[..., Any])

GROUPS: dict[Group, str] = {
    "data": "Data",
    "labels": "Labels",
    "student": "Student",
    "objective": "Objective",
    "output": "Output",
    "schedule": "Schedule",
    "teacher": "Teacher",
    "crops": "Crops",
    "machine": "Machine",
}
"""Headings of `--help`, in their order."""

VERBOSE = "cskd_pipeline_cli.verbose"
"""Under which contexts keep whether --verbose is given."""

_verbose_option = click.option(
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=lambda ctx, _, given: ctx.meta.__setitem__(VERBOSE, given),
    help="List all of what an error names the first of, such as weights that do not fit.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


class GroupedOption(click.Option):
    """An option that knows under which heading `--help` lists it."""

    def __init__(self, *args: Any, group: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose `--help` lists options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those of a request by group and the others last."""
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in (*GROUPS.values(), "Other")}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections[getattr(parameter, "group", "Other")].append(record)
        for heading, rows in sections.items():
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


class NumberOrAuto(click.ParamType[int | None]):
    """A number, or auto for the default."""

    name = "NUMBER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """The number; None for "auto"."""
        text = str(value)
        if text == "auto":
            return None
        if not text.isdecimal():
            option = param.opts[-1] if param is not None else "the option"
            raise UsageError(f"{option} must be a number or auto, found {text!r}")
        return int(text)


class Text(click.types.StringParamType):
    """Text; several values in an environment variable stand on lines of their own, since paths may have spaces."""

    envvar_list_splitter = "\n"


def request_command(
    request: type[Settings], short_help: str, *, name: str | None = None, config: bool = True
) -> Callable[[Callable[..., None]], click.Command]:
    """A command with an option for every setting of a request, and `--config` unless that is declined.

    The function gets the request of what was given, by command line, environment or file, and its own parameters.
    """

    def decorate(act: Callable[..., None]) -> click.Command:
        @functools.wraps(act)
        def run(**parameters: Any) -> None:
            ctx, default = click.get_current_context(), (click.core.ParameterSource.DEFAULT, None)
            settings = {name: parameters.pop(name) for name in kinds(request)}
            given = {
                name: value
                for name, value in settings.items()
                if ctx.get_parameter_source(name) not in default and value is not None
            }
            act(request.of(**given), **parameters)

        command: Callable[..., None] = config_option(run) if config else run
        command = _verbose_option(command)
        for kind in reversed([*kinds(request).values()]):
            command = _option(kind)(command)
        return click.command(name, cls=GroupedCommand, short_help=short_help)(command)

    return decorate


def _option(kind: Kind) -> Callable[[Command], Command]:
    shown = kind.shown
    if shown is None and isinstance(kind.default, str | int | float) and not isinstance(kind.default, bool):
        shown = f"{kind.default}"
    names = [f"{kind.option}/--no-{kind.option.removeprefix('--')}" if kind.off else kind.option, kind.name]
    settings: dict[str, Any] = {"metavar": kind.metavar, "required": kind.required, "default": None}
    if kind.type is bool:
        settings |= {"is_flag": True, "default": False}
    elif kind.type == Named:
        settings |= {"type": KeyValue(), "multiple": True}
    elif kind.choices:
        settings |= {"type": click.Choice(kind.choices), "multiple": kind.repeated}
    elif kind.type is Path:
        settings |= {"type": click.Path(path_type=Path)}
    elif kind.metavar == NumberOrAuto.name:
        settings |= {"type": NumberOrAuto()}
    else:
        settings |= {"type": kind.type if kind.type in (int, float) else Text(), "multiple": kind.repeated}
    return click.option(
        *names,
        cls=GroupedOption,
        group=GROUPS[kind.group],
        help=kind.help + (f"  [default: {shown}]" if shown else ""),
        **settings,
    )
