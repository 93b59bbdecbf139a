"""YAML as people write options, numbers by YAML 1.2's rules, and the parameter type KEY=VALUE.

PyYAML follows YAML 1.1, in which 10:20 is the number 620, 1e-3 is text and 2024-01-01 is a date.
"""

from __future__ import annotations

import re
from typing import Any

import click
import yaml

_PLAIN = (str, int, float, bool, list, type(None))
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012  # the name and form that PyYAML looks for
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NUMBERS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(_NUMBERS[0], re.compile(r"[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _NUMBERS[1], re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"), list("-+.0123456789")
)


def parse_yaml(text: str) -> Any:
    """The value that `text` stands for; raises yaml.YAMLError if it is not YAML."""
    return yaml.load(text, Loader=_Loader)  # a SafeLoader


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
        if not text.strip():  # YAML's null, which timm takes for an argument that is not given
            self.fail(f"{value!r} has no value; give one, or leave the option out", param, ctx)
        try:
            parsed = parse_yaml(text)
        except yaml.YAMLError:
            self.fail(f"the value in {value!r} cannot be read", param, ctx)
        if not isinstance(parsed, _PLAIN):
            self.fail(f"the value in {value!r} is a {type(parsed).__name__}; give a number, text or a list", param, ctx)
        return key.strip().replace("-", "_"), parsed
