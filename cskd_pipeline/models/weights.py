"""Weights from elsewhere: freed of what wrapped them, and fitted to a module without surprises."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from cskd_pipeline.errors import DataError
from cskd_pipeline.models.weight_file import read_weight_file

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "module")
"""Keys under which published checkpoints keep the weights; those of an average are preferred."""

_INSERTED = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, FSDP and activation checkpointing put into names, wherever they were applied."""

_HOLDERS = ("module.", "model.", "timm_model.")
"""The network's name in DistributedDataParallel and averages, in Lightning modules, and in Hugging Face's wrapper."""

_SHOWN = 3


def load_weights(path: Path | str) -> dict[str, Tensor]:
    """The tensors in a `.safetensors` file or a PyTorch checkpoint, on the CPU, under the network's own names.

    A checkpoint may be bare or hold them under one of `_WRAPPERS`; what wrappers of the network add to names is
    removed, and what they hold besides (losses, counters) is left out.

    Raises:
        DataError: the file is missing, damaged, holds something else, or would have to run code to be read.
    """
    content = read_weight_file(Path(path))
    while wrapped := [content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)]:
        content = cast(Mapping[str, object], wrapped[0])
    tensors = _own_names({str(name): value for name, value in content.items() if isinstance(value, Tensor)})
    if not tensors:
        raise DataError(f"{path} holds no tensors; its keys are {_some(list(map(str, content)))}")
    return tensors


def _own_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors = {_INSERTED.sub("", name): value for name, value in tensors.items()}
    while True:
        first, dot, _ = next(iter(tensors), "").partition(".")
        shared = [first + dot] if dot and all(name.startswith(first + dot) for name in tensors) else []
        held = [holder for holder in _HOLDERS if any(name.startswith(holder) for name in tensors)]
        if not (found := held + shared):
            return tensors
        prefix = found[0]
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def fit_weights(
    module: nn.Module, weights: Mapping[str, Tensor], *, source: Path | str, may_differ: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Load `weights` into `module`; returns the keys of `module` that kept their own values.

    A module that other programs' files call differently has `own_names`, which translates the keys.
    Keys with a prefix in `may_differ` (classifiers, as a rule) may be absent or have another shape. Otherwise, raises
    DataError that names `source` and the first keys that are missing, unknown or of another shape; nothing is loaded.
    """
    weights = getattr(module, "own_names", dict)(weights)
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
    found = {"": reshaped, "missing ": missing, "unknown ": unknown}
    faults = [f"{what}{_some(keys)}" for what, keys in found.items() if keys]
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
