"""Models in safetensors, with the settings that built them in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cskd_pipeline.errors import DataError
from cskd_pipeline.storage.durable import write_atomic


def save_model(path: Path, weights: Mapping[str, Tensor], *, metadata: Mapping[str, Any]) -> None:
    """Replace `path` with these weights; each metadata value is stored as JSON text.

    Raises:
        RetryError: the storage is full, read-only or unreachable; the old file is intact.
    """
    from safetensors.torch import save

    # Other readers expect "format"; the rest is ours.
    header = {"format": "pt"} | {key: json.dumps(value, sort_keys=True) for key, value in metadata.items()}
    content = save({key: value.detach().cpu().contiguous() for key, value in weights.items()}, header)
    write_atomic(path, lambda file: file.write(content))


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata that `save_model` stored; empty for a safetensors file from another program.

    Raises:
        DataError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is not a readable safetensors file ({error})") from error
    metadata = {}
    for key, text in header.items():
        try:
            metadata[key] = json.loads(text)
        except json.JSONDecodeError:
            metadata[key] = text
    return metadata
