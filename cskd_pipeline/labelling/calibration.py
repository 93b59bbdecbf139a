"""Scales of a teacher's channels, measured once when a store of its features is begun, and written into it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from cskd_pipeline.batch import Features
from cskd_pipeline.crops.recipe import CropRecipe
from cskd_pipeline.data import SampleIndex
from cskd_pipeline.labels import PooledEncoding, TokensEncoding, measure_channels
from cskd_pipeline.labels.choice import Settings, make_encodings
from cskd_pipeline.labels.features.tokens import DEFAULT_LAYERS, require_layers
from cskd_pipeline.loading import CropLoader
from cskd_pipeline.loading.order import sample_batches
from cskd_pipeline.models.teacher.teacher import Teacher

CROPS = 128


def with_channels(
    settings: Settings,
    present: Mapping[str, Mapping[str, Any]],
    *,
    index: SampleIndex,
    recipe: CropRecipe,
    teacher: Teacher,
) -> Settings:
    """The settings of encodings, those of features with the scales of channels and with numbers of layers.

    The scales are those of a store that has them already, or measured on crops of seed 0 from all over the data set,
    whatever seeds are asked for: stores that are begun twice are equal.

    Args:
        settings: name -> settings.
        present: the same of the store, as far as it exists.
        index, recipe, teacher: what the store is made of.

    Raises:
        UsageError: the teacher has no patch tokens, or not the layers asked for, or a setting is not allowed.
    """
    settings = {name: dict(values) for name, values in settings.items()}
    pooled, tokens = settings.get(PooledEncoding.name), settings.get(TokensEncoding.name)
    layers: tuple[int, ...] = ()
    if tokens is not None:
        given = tokens.get("layers", DEFAULT_LAYERS)
        given = tuple(given) if isinstance(given, list) else given
        require_layers(given)
        tokens["layers"] = layers = teacher.layers(given)
    begun = {name: values for name, values in present.items() if "channels" in values and name in settings}
    for name, values in begun.items():
        if tuple(values.get("layers", ())) == tuple(settings[name].get("layers", ())):
            settings[name]["channels"] = values["channels"]
    lacking = [values for values in (pooled, tokens) if values is not None and "channels" not in values]
    if lacking:
        flat: Settings = {
            PooledEncoding.name: {"channels": (0,)},
            TokensEncoding.name: {"channels": ((0,),) * len(layers)},
        }
        others = {name: {**flat.get(name, {}), **values} for name, values in settings.items()}
        make_encodings(others, positions=teacher.positions, classes=teacher.spec.classes)  # refuses before the work
        found = list(_features(index, recipe, teacher, pooled=pooled is not None, layers=layers))
        if pooled in lacking:
            pooled["channels"] = measure_channels(
                torch.cat([one.pooled_BD for one in found if one.pooled_BD is not None])
            )
        if tokens in lacking:
            tokens_nLPD = torch.cat([one.tokens_BLPD for one in found if one.tokens_BLPD is not None])
            tokens["channels"] = tuple(measure_channels(layer.flatten(0, 1)) for layer in tokens_nLPD.unbind(1))
    return settings


def _features(
    index: SampleIndex, recipe: CropRecipe, teacher: Teacher, *, pooled: bool, layers: tuple[int, ...]
) -> Iterator[Features]:
    """What the teacher shows of some crops and their mix partners."""
    total, spec = len(index), teacher.spec
    count = min(CROPS, total)
    picks = np.arange(count, dtype=np.int64) * (total - 1) // max(1, count - 1)
    samples = np.unique(np.concatenate([picks, recipe.partners(0, picks, total=total)]))
    with CropLoader(index, recipe, workers=0) as loader:
        for crops in loader.load(sample_batches(recipe, 0, samples, total=total, batch=spec.chunk)):
            pixels = crops.pixels(recipe, mean=spec.mean, std=spec.std, device=teacher.device)
            yield teacher.answer(pixels, pooled=pooled, layers=layers)[2]
