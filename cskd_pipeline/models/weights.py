"""Weights on disk, read without running code from the file, and fitted to a module without surprises."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from cskd_pipeline.errors import DataError

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys under which published checkpoints keep the weights; those of an average are preferred."""

_SHOWN = 3


def load_weights(path: Path | str) -> dict[str, Tensor]:
    """The tensors in a `.safetensors` file or a PyTorch checkpoint, on the CPU.

    A checkpoint may be bare or hold them under one of `_WRAPPERS`. A leading "module." (left by
    DistributedDataParallel) is removed. Only tensors and plain containers are unpickled.

    Raises:
        DataError: the file is missing, damaged, holds something else, or would have to run code to be read.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no weights at {path}")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for key in _WRAPPERS:
        inner = content.get(key)
        if isinstance(inner, Mapping):
            content = inner
            break
    tensors = {str(name).removeprefix("module."): value for name, value in content.items() if torch.is_tensor(value)}
    if not tensors:
        raise DataError(f"{path} holds no tensors; its keys are {_some(list(map(str, content)))}")
    return tensors


def fit_weights(
    module: nn.Module, weights: Mapping[str, Tensor], *, source: Path | str, may_differ: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Load `weights` into `module`; returns the keys of `module` that kept their own values.

    Args:
        module: the receiver, changed in place (only if everything fits).
        weights: tensors by key.
        source: where the weights are from, for the error message.
        may_differ: key prefixes (classifiers, as a rule) that may be absent or have another shape.

    Raises:
        DataError: a key is missing, unknown or of another shape; the first few are named with both shapes.
    """
    own = module.state_dict()

    def excused(key: str) -> bool:
        return key.startswith(may_differ) if may_differ else False

    fitting = {key: value for key, value in weights.items() if key in own and value.shape == own[key].shape}
    reshaped = [
        f"{key} is {tuple(value.shape)} where {tuple(own[key].shape)} is needed"
        for key, value in weights.items()
        if key in own and value.shape != own[key].shape and not excused(key)
    ]
    missing = [key for key in own if key not in weights and not excused(key)]
    unknown = [key for key in weights if key not in own and not excused(key)]
    faults = [
        text
        for text, found in (
            (_some(reshaped), reshaped),
            (f"missing {_some(missing)}", missing),
            (f"unknown {_some(unknown)}", unknown),
        )
        if found
    ]
    if faults:
        raise DataError(f"the weights in {source} do not fit {type(module).__name__}: {'; '.join(faults)}")
    module.load_state_dict(fitting, strict=False)
    return tuple(key for key in own if key not in fitting)


def weights_digest(module: nn.Module) -> str:
    """32 hex digits of the parameters' and buffers' names, dtypes, shapes and bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for key, value in sorted(module.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _some(items: list[str]) -> str:
    rest = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _read_safetensors(path: Path) -> Mapping[str, object]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is not a readable safetensors file ({_first_line(error)})") from error


def _read_pickle(path: Path) -> Mapping[str, object]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # torch reports damage as RuntimeError, EOFError, UnpicklingError or an error of the zip reader beneath.
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path} is damaged, or holds more than tensors and plain values ({_first_line(error)})"
        ) from error
    if not isinstance(content, Mapping):
        raise DataError(f"{path} holds a {type(content).__name__}, not a mapping of tensors")
    return content


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
