"""The encodings by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cskd_pipeline.errors import UsageError, nearest
from cskd_pipeline.labels.base import Encoding
from cskd_pipeline.labels.features import PooledEncoding, TokensEncoding
from cskd_pipeline.labels.full import FullEncoding
from cskd_pipeline.labels.hard import HardEncoding
from cskd_pipeline.labels.soft import SoftEncoding
from cskd_pipeline.labels.truth import TruthEncoding

ENCODINGS: Mapping[str, type[Encoding]] = MappingProxyType(
    {
        encoding.name: encoding
        for encoding in (HardEncoding, SoftEncoding, FullEncoding, TruthEncoding, PooledEncoding, TokensEncoding)
    }
)


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


def encodings_from_json(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Encoding]:
    """The encodings of a store from name -> settings, in the order of the table.

    Raises:
        UsageError: a name or a setting is unknown.
    """
    made = {name: encoding_from_json({**values, "name": name}) for name, values in settings.items()}
    return {name: made[name] for name in ENCODINGS if name in made}


def encodings_to_json(encodings: Mapping[str, Encoding]) -> dict[str, dict[str, Any]]:
    """Name -> settings, as `encodings_from_json` reads them."""
    return {
        name: {key: value for key, value in encoding.to_json().items() if key != "name"}
        for name, encoding in encodings.items()
    }
