"""The parameter type KEY=VALUE, for arguments that are handed on to timm, a recipe or an objective."""

from __future__ import annotations

from typing import Any

import click
import yaml

from .yaml_text import parse_yaml


class KeyValue(click.ParamType[tuple[str, Any]]):
    """A pair; the value is read as YAML: 8 is a number, true a boolean, [1, 2] a list, anything else text."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """The pair."""
        if isinstance(value, tuple):
            return value[0], value[1]
        key, equals, text = str(value).partition("=")
        if not equals or not key.strip():
            self.fail(f"{value!r} is not of the form KEY=VALUE, such as img_size=64", param, ctx)
        try:
            parsed = parse_yaml(text)
        except yaml.YAMLError:
            self.fail(f"the value in {value!r} cannot be read", param, ctx)
        if not isinstance(parsed, _PLAIN):
            self.fail(f"the value in {value!r} is a {type(parsed).__name__}; give a number, text or a list", param, ctx)
        return key.strip().replace("-", "_"), parsed


_PLAIN = (str, int, float, bool, list, type(None))
