"""The encodings by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cskd_pipeline.encodings.base import Encoding
from cskd_pipeline.encodings.full import FullEncoding
from cskd_pipeline.encodings.hard import HardEncoding
from cskd_pipeline.errors import UsageError, nearest

ENCODINGS: dict[str, type[HardEncoding] | type[FullEncoding]] = {"hard": HardEncoding, "full": FullEncoding}


def encoding_from_json(values: Mapping[str, Any]) -> Encoding:
    """The encoding that wrote these settings with `to_json`.

    Raises:
        UsageError: the name or a setting is unknown.
    """
    settings = dict(values)
    name = str(settings.pop("name", ""))
    if name not in ENCODINGS:
        raise UsageError(f"no encoding {name!r}{nearest(name, list(ENCODINGS))}; known: {', '.join(ENCODINGS)}")
    return ENCODINGS[name].from_json(settings)
