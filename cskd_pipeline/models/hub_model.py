"""A model as timm's `save_for_hf` stores it, in a folder or on the Hugging Face hub: its configuration and its weights.

It is named as timm names it: `local-dir:FOLDER`, `hf-hub:USER/NAME` or `hf-hub:USER/NAME@REVISION`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cskd_pipeline.errors import DataError, UsageError, first_line

if TYPE_CHECKING:
    from torch import nn

_SOURCES = ("local-dir:", "hf-hub:", "hf_hub:")
_CONFIG = "config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""What `save_for_hf` calls the file of weights, now and in the past."""
_ENDINGS = (".safetensors", ".bin", ".pth", ".pt", ".tar")


@dataclasses.dataclass(frozen=True, slots=True)
class HubModel:
    """What a configuration says.

    Attributes:
        architecture: timm's name of the model.
        args: arguments that timm's constructor needs beside the number of classes.
        classes: outputs of its classifier.
        config: what timm calls `pretrained_cfg`: mean, std, input size and more.
    """

    architecture: str
    args: Mapping[str, Any]
    classes: int
    config: Mapping[str, Any]


def is_hub_name(name: str) -> bool:
    """Whether it names a folder or a model on the hub rather than an architecture."""
    return name.startswith(_SOURCES)


def open_hub_model(name: str) -> HubModel:
    """The configuration of such a model.

    Raises:
        UsageError: the name is malformed.
        DataError: there is none, it is out of reach, or not one of timm's.
    """
    path = _file(name, _CONFIG)
    content: dict[str, Any] = {}
    try:
        content = json.loads(path.read_text())
        config = content.get("pretrained_cfg", content)  # once all was in one
        architecture, args = str(content["architecture"]), {**(content.get("model_args") or {})}
        classes = int(content.get("num_classes", config.get("num_classes")))
    except KeyError as error:
        kind = f"of {content['model_type']!r}, a model of another library" if "model_type" in content else "not timm's"
        raise DataError(f"{path} is {kind} (it has no {error}); a model of timm is needed") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({first_line(error)}); copy or download it again") from error
    args.pop("num_classes", None)
    return HubModel(architecture, args, classes, config)


def save_hub_model(
    model: nn.Module,
    folder: Path,
    *,
    args: Mapping[str, Any],
    classes: int,
    names: Sequence[str] | None,
    size: int,
    crop_pct: float,
) -> None:
    """Write such a folder: `config.json` and `model.safetensors`.

    Args:
        model: of timm, with its own names.
        folder: a new one.
        args: what timm's constructor was given.
        classes: outputs of the classifier.
        names: what they are called, None where that is not known.
        size: side in pixels of the images that it was trained on.
        crop_pct: share of the image that evaluation sees.
    """
    from timm.models import save_for_hf

    # timm's own weights of that name have another licence, and a tag that these must not go by.
    config: dict[str, Any] = {"num_classes": classes, "pretrained_cfg": {"tag": "distilled", "license": "other"}}
    save_for_hf(
        model,
        str(folder),
        model_config=config if names is None else {**config, "label_names": [*names]},
        model_args=dict(args),
        safe_serialization=True,
        data_config={"input_size": (3, size, size), "crop_pct": crop_pct},
    )


def weights_of(source: Path | str) -> Path:
    """The file of weights: `source` itself, or the one in a folder or of a model on the hub.

    Raises:
        DataError: the folder has none, or several none of which has the name that `save_for_hf` gives; or the hub has
            none or is out of reach.
    """
    name = str(source)
    if not is_hub_name(name):
        return _in_folder(Path(source)) if Path(source).is_dir() else Path(source)
    if name.startswith("local-dir:"):
        return _in_folder(_folder(name))
    with contextlib.suppress(DataError):
        return _file(name, _WEIGHTS[0])
    return _file(name, _WEIGHTS[1])


def _in_folder(folder: Path) -> Path:
    files = [file for file in sorted(folder.iterdir()) if file.suffix in _ENDINGS]
    named = [file for name in _WEIGHTS for file in files if file.name == name]
    if not named and len(files) != 1:
        has = f"several: {', '.join(file.name for file in files[:3])}" if files else "none"
        raise DataError(f"{folder} is a folder; give the file of weights in it (it has {has})")
    return (named or files)[0]


def _folder(name: str) -> Path:
    folder = Path(name.partition(":")[2])
    if not folder.is_dir():
        raise DataError(f"{name}: there is no folder {folder}")
    return folder


def _file(name: str, file: str) -> Path:
    """A file of the model, downloaded into the hub's cache if it is there."""
    where = name.partition(":")[2]
    if name.startswith("local-dir:"):
        path = _folder(name) / file
        if not path.is_file():
            raise DataError(
                f"{name} has no {file}; give a folder that timm's save_for_hf made, or the architecture "
                "with --teacher, and the weights with --teacher-weights"
            )
        return path
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    model, _, revision = where.partition("@")
    try:
        return Path(hf_hub_download(model, file, revision=revision or None))
    except HFValidationError as error:
        raise UsageError(f"{name} must be hf-hub:USER/NAME or hf-hub:USER/NAME@REVISION") from error
    except Exception as error:  # the hub's client and the network raise many kinds
        raise DataError(
            f"{name}: its {file} is not within reach ({first_line(error)}); check the name, the network, and $HF_TOKEN "
            "for a private one"
        ) from error
