"""Option defaults from presets and YAML files: flags > environment > --config > --preset > defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml

from cskd_pipeline.errors import UsageError, nearest

Command = TypeVar("Command", bound=Callable[..., Any])


def config_option(command: Command) -> Command:
    """Add `--config FILE`, whose keys are the command's long options without dashes in front."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_read,
        help="YAML file with defaults for these options.",
    )(command)


def add_defaults(ctx: click.Context, defaults: Mapping[str, Any], *, below: bool = False) -> None:
    """Let parameters default to these values; `below` those that are set already."""
    known = dict(ctx.default_map or {})
    ctx.default_map = {**defaults, **known} if below else {**known, **defaults}


def _read(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path} ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise UsageError(f"the configuration {path} is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise UsageError(f"the configuration {path} must be a list of `option: value` lines")
    names = {
        option.lstrip("-"): p.name
        for p in ctx.command.params
        if p.name and p.name != "config"
        for option in (*p.opts, *p.secondary_opts)
        if option.startswith("--")
    }
    defaults = {}
    for key, value in values.items():
        name = names.get(str(key).replace("_", "-"))
        if name is None:
            known = sorted(names)
            raise UsageError(
                f"{path} has an unknown key {key!r}{nearest(str(key), known)}; `{ctx.info_name}` knows "
                f"{', '.join(known)}"
            )
        if isinstance(value, dict):
            value = [f"{k}={yaml.safe_dump(v, default_flow_style=True).splitlines()[0]}" for k, v in value.items()]
        defaults[name] = value
    add_defaults(ctx, defaults)
