"""Option defaults from YAML files: flags > environment > --config > --preset > defaults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import yaml

from cskd_pipeline.errors import UsageError, nearest

from .yaml_text import KeyValue, parse_yaml


def config_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add `--config FILE`, whose keys are the command's long options without dashes in front."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_read,
        help="YAML file of defaults: these options without dashes, such as `out: labels.zarr`.",
    )(command)


def _read(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path} ({error.strerror}); check its path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"the configuration {path} is not YAML ({' '.join(str(error).split())}); mend it") from error
    if not isinstance(values, dict):
        raise UsageError(
            f"the configuration {path} holds {type(values).__name__}; write a list of `option: value` lines"
        )
    options = {
        option.removeprefix("--"): p
        for p in ctx.command.params
        if isinstance(p, click.Option) and p.name != "config"
        for option in p.opts
        if option.startswith("--")
    }
    defaults = {}
    for key, value in values.items():
        option = options.get(str(key).replace("_", "-"))
        if option is None:
            known = sorted(options)
            raise UsageError(
                f"{path} has an unknown key {key!r}{nearest(str(key), known)}; `{ctx.info_name}` knows "
                f"{', '.join(known)}"
            )
        if value is not None:
            assert option.name
            defaults[option.name] = _as_given(option, value, where=f"{path}: {key}")
    ctx.default_map = {**(ctx.default_map or {}), **defaults}


def _as_given(option: click.Option, value: Any, *, where: str) -> Any:
    """The value as the command line would have given it, in text."""
    if isinstance(value, dict):
        if not isinstance(option.type, KeyValue):
            raise UsageError(f"{where} takes no `key: value` pairs, found {value}; give a single value")
        return [(str(name).replace("-", "_"), item) for name, item in value.items()]
    if option.multiple:
        items = value if isinstance(value, list) else [value]
        return [str(item) for item in items]
    if isinstance(value, list):
        raise UsageError(f"{where} takes a single value, found {value}")
    return value if option.is_flag else str(value)
