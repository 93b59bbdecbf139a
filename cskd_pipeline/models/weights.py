"""Weights from elsewhere: freed of what wrapped them, and fitted to a module without surprises."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cskd_pipeline.errors import DataError
from cskd_pipeline.models.hub_model import weights_of
from cskd_pipeline.models.weight_file import read_weight_file
from cskd_pipeline.progress import Watch, silent

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "module")
"""Entries under which published checkpoints keep the weights; those of an average are preferred."""

_INSERTED = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, FSDP and activation checkpointing put into names, wherever they were applied."""

_HOLDERS = ("module.", "model.", "timm_model.")
"""The network's name in DistributedDataParallel and averages, in Lightning modules, and in Hugging Face's wrapper."""

_SHOWN = 3


def load_weights(
    path: Path | str, *, entry: str | None = None, option: str = "entry", watch: Watch = silent
) -> dict[str, Tensor]:
    """The tensors in a `.safetensors` file or a PyTorch checkpoint, on the CPU, under the network's own names.

    A checkpoint may be bare or hold them under one of `_WRAPPERS`; what wrappers of the network add to names is
    removed, and what they hold besides (losses, counters) is left out.

    Args:
        path: the file, a folder or `hf-hub:USER/NAME` as `hub_model.weights_of` takes them.
        entry: where in a checkpoint they are, as "state_dict_ema", "ema.module", or the first parts of their names, as
            "state_dict.teacher"; None takes the first of `_WRAPPERS`.
        option: what gives the entry, for errors and for what is said.
        watch: is told which entry was taken, where there are several, or one of an average.

    Raises:
        DataError: the file is missing, damaged, holds something else, would have to run code to be read, or has no
            such entry.
    """
    content = read_weight_file(weights_of(path))
    entries = dict(_entries(content))
    if not entries:
        raise DataError(f"{path} holds no tensors; its keys are {_some(list(map(str, content)))}")
    taken = _usual(content) if entry is None else entry
    tensors = _at(entries, taken)
    if not tensors:
        what = f"has no entry {entry!r}" if entry is not None else "says not which of its entries are the weights"
        raise DataError(
            f"{path} {what}; give {option} one of {_some([*entries])}", details=[f"entry {name}" for name in entries]
        )
    others = [name for name in entries if name and name != taken]
    if others or "ema" in taken:
        has = f", it also has {_some(others)} ({option} takes another)" if others else ""
        watch(f"{path}: took the weights in {taken or 'its top level'}{has}")
    return _own_names(tensors)


def _entries(content: Mapping[Any, object], place: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Place of each mapping that has tensors, as "state_dict.average" ("" for the outermost) -> the tensors.

    Tensors by number, as in an optimizer's state, are no weights.
    """
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if tensors:
        yield place, tensors
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, Mapping) and name != "optimizer":
            yield from _entries(value, f"{place}.{name}" if place else name)


def _usual(content: Mapping[Any, object]) -> str:
    """The place to which `_WRAPPERS` lead."""
    for name in _WRAPPERS:
        inner = content.get(name)
        if isinstance(inner, Mapping):
            return f"{name}.{further}" if (further := _usual(inner)) else name
    return ""


def _at(entries: Mapping[str, dict[str, Tensor]], place: str) -> dict[str, Tensor]:
    """The tensors of an entry, or those whose names in one begin with what is left of `place`; empty if none do."""
    if place in entries:
        return entries[place]
    for entry, tensors in entries.items():
        prefix = f"{place.removeprefix(f'{entry}.')}."
        if place.startswith(f"{entry}.") or not entry:
            found = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            if found:
                return found
    return {}


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
    module: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    source: Path | str,
    may_differ: tuple[str, ...] = (),
    watch: Watch = silent,
) -> tuple[str, ...]:
    """Load `weights` into `module`; returns the keys of `module` that kept their own values.

    A module that other programs' files call differently has `own_names`, which translates the keys. Weights that do
    not fit as they are go through timm's filter for the architecture, which resamples position embeddings made for
    another size of images; `watch` is told what changed its shape.

    Keys with a prefix in `may_differ` (classifiers, as a rule) may be absent or have another shape. Otherwise, raises
    DataError that names `source` and the first keys that are missing, unknown or of another shape, all of them in its
    `details`; nothing is loaded.
    """
    weights = getattr(module, "own_names", dict)(weights)
    own = module.state_dict()
    faults = _faults(own, weights, may_differ)
    if any(faults.values()):
        filtered = _filtered(module, weights)
        if not any(_faults(own, filtered, may_differ).values()):
            for key, value in filtered.items():
                if key in weights and key in own and value.shape != weights[key].shape:
                    watch(f"{source}: {key} resampled from {tuple(weights[key].shape)} to {tuple(value.shape)}")
            weights, faults = filtered, {}
    if any(faults.values()):
        named = [f"{what}{_some(keys)}" for what, keys in faults.items() if keys]
        raise DataError(
            f"the weights in {source} do not fit {type(module).__name__}: {'; '.join(named)}",
            details=[f"{what}{key}" for what, keys in faults.items() for key in keys],
        )
    fitting = {key: value for key, value in weights.items() if key in own and value.shape == own[key].shape}
    module.load_state_dict(fitting, strict=False)
    return tuple(key for key in own if key not in fitting)


def _faults(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor], may_differ: tuple[str, ...]
) -> dict[str, list[str]]:
    """What keeps `weights` from fitting, by kind."""

    def excused(key: str) -> bool:
        return key.startswith(may_differ) if may_differ else False

    reshaped = [
        f"{key} is {tuple(value.shape)} where {tuple(own[key].shape)} is needed"
        for key, value in weights.items()
        if key in own and value.shape != own[key].shape and not excused(key)
    ]
    missing = [key for key in own if key not in weights and not excused(key)]
    unknown = [key for key in weights if key not in own and not excused(key)]
    return {"": reshaped, "missing ": missing, "unknown ": unknown}


def _filtered(module: nn.Module, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The weights as timm's filter for the architecture makes them; as they are where it has none or cannot."""
    act = getattr(sys.modules.get(type(module).__module__), "checkpoint_filter_fn", None)
    if act is not None:
        with contextlib.suppress(Exception):  # it is made for its own files, and trips over others
            return {key: value for key, value in act(dict(weights), module).items() if isinstance(value, Tensor)}
    return weights


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
