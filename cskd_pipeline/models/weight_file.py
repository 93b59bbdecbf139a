"""What lies in a file of weights, read without running code from it; a file that is something else is named as that."""

from __future__ import annotations

import argparse
import collections
import contextlib
import pathlib
import pickle
import types
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy._core.multiarray as multiarray
import torch

from cskd_pipeline.errors import DataError, first_line

_HARMLESS: list[Any] = [
    *(argparse.Namespace, types.SimpleNamespace, pathlib.PosixPath, pathlib.PurePosixPath),
    *(collections.Counter, dict, list, set, int, float, str, complex),
    *(np.ndarray, np.dtype, *{type(np.dtype(code)) for code in "?bhilqBHILQefdSU"}),
    # numpy's own makers of scalars and arrays, under the names that its versions 1 and 2 write.
    *((multiarray.scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((multiarray._reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]
"""What training scripts keep beside the weights (arguments, scores, paths) and what holds data alone."""

_OTHER_KINDS = (
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the weights: fetch them with `git lfs pull`"),
    (0, b"\x1f\x8b", "compressed with gzip: unpack it"),
    (0, b"\xfd7zXZ", "compressed with xz: unpack it"),
    (0, b"\x89HDF", "an HDF5 file, of Keras as a rule"),
    (0, b"\x93NUMPY", "an array of NumPy"),
    (257, b"ustar", "a tar archive: unpack it, and give the checkpoint in it"),
)
_NEEDED = "give a PyTorch checkpoint or a .safetensors file"


def read_weight_file(path: Path) -> Mapping[str, object]:
    """What a `.safetensors` file or a PyTorch checkpoint holds, on the CPU; contents decide which it is, not names.

    Only tensors, plain containers and what is in `_HARMLESS` are unpickled.

    Raises:
        DataError: the file is missing, damaged, something else, or would have to run code to be read.
        OSError: it may not be read.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; give the file of weights in it")
    if not path.is_file():
        raise DataError(f"no weights at {path}")
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise DataError(f"{path} is empty; copy or download it again")
    if start[8:9] == b"{":
        return _read_safetensors(path)
    for offset, magic, kind in _OTHER_KINDS:
        if start[offset:].startswith(magic):
            raise DataError(f"{path} is {kind}; {_NEEDED}")
    if start.lstrip()[:1] == b"<":
        raise DataError(f"{path} is a web page, not weights: the download went wrong; {_NEEDED}")
    if start[:2] == b"PK":
        _require_checkpoint(path)
    elif start[:1] != b"\x80":
        raise DataError(f"{path} is damaged, or is no file of weights; {_NEEDED}")
    return _read_pickle(path)


def _read_safetensors(path: Path) -> Mapping[str, object]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is not a readable safetensors file ({first_line(error)})") from error


def _require_checkpoint(path: Path) -> None:
    """Raise DataError unless this zip archive is a checkpoint."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is damaged ({first_line(error)}); copy or download it again") from error
    inside = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in inside:
        raise DataError(f"{path} is a TorchScript program, not weights alone; {_NEEDED}")
    if "data.pkl" not in inside:
        raise DataError(f"{path} is a zip archive without a checkpoint (it holds {', '.join(names[:3])}); {_NEEDED}")


def _read_pickle(path: Path) -> Mapping[str, object]:
    # The file and not its name, by whose ending torch would choose another reader.
    with torch.serialization.safe_globals(_HARMLESS), path.open("rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        # Damage shows as whatever the reader beneath stumbles over.
        except Exception as error:
            if foreign := _foreign(file, error):
                raise DataError(
                    f"{path} holds objects that only running its code could restore ({foreign}), which is never done; "
                    "save the weights alone where they come from: torch.save(model.state_dict(), 'weights.pth'), or "
                    "a .safetensors file"
                ) from error
            raise DataError(
                f"{path} is damaged ({first_line(error)}); copy or download it again, or save it again"
            ) from error
    if not isinstance(content, Mapping):
        raise DataError(f"{path} holds a {type(content).__name__}, not a mapping of tensors; {_NEEDED}")
    return content


def _foreign(file: BinaryIO, error: Exception) -> str:
    """Names of what the file would have to execute; "" if it is damaged instead."""
    if not isinstance(error, pickle.UnpicklingError) or "weights_only" not in str(error).lower():
        return ""
    found: list[str] = []
    with contextlib.suppress(Exception):  # files of old formats
        file.seek(0)
        found = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    return ", ".join(sorted(found)[:3]) or "which ones, torch does not say"
