"""The images of a request, to train on, to label and to be scored on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cskd_pipeline.errors import MismatchError
from cskd_pipeline.progress import Progress, Watch

if TYPE_CHECKING:
    import torch
    from torch import nn

    from cskd_pipeline.data import DataSource, SampleIndex
    from cskd_pipeline.loading import EvaluationSet

CROP_PCT = 0.875
"""Share of the image that evaluation sees: DeiT's."""


def open_data(data: str | DataSource, *, split: str, root: str | None, watch: Watch) -> SampleIndex:
    """The index of a split, built where there is none yet; errors as `data.open_split`.

    `watch` is told what there is to say of the classes of data that is given by name.
    """
    from cskd_pipeline.data import is_index, open_split, remarks, resolve_data

    source = resolve_data(data, root=root) if isinstance(data, str) and not is_index(data) else data
    index = open_split(source, split, root=root, progress=counting(f"index {split}", watch))
    if isinstance(data, str) and not isinstance(source, str):
        for line in remarks(source, index):
            watch(line)
    return index


def find_data(
    about: Mapping[str, Any], *, data: str | None = None, split: str | None = None, root: str | None, watch: Watch
) -> SampleIndex:
    """The images whose name, split, digest and number of classes labels or a run state, or those in `data`.

    Those in `data` are not compared with the digest. Raises DataError, which says where was looked, if none are found.
    """
    from cskd_pipeline.data import find_split

    name, own, digest = (str(about[field]) for field in ("name", "split", "digest"))
    if data is not None:
        return open_data(data, split=split or own, root=root, watch=watch)
    classes, progress = about.get("classes"), counting(f"index {own}", watch)
    return find_split(digest=digest, name=name, split=own, classes=classes, root=root, progress=progress)


def counting(task: str, watch: Watch, *, unit: str = "image") -> Callable[[int, int], None]:
    """Tells `watch` of the (done, total) that it is called with."""
    return lambda done, total: watch(Progress(task, done, total, unit))


def split_to_score(data: str | DataSource, root: str | None) -> str | None:
    """The split of a data set that scores are taken on: val, else test, else None. An index has no other split."""
    from cskd_pipeline.data import evaluation_split, is_index, resolve_data

    if not isinstance(data, str):
        return evaluation_split(data)
    return None if is_index(data) else evaluation_split(resolve_data(data, root=root))


def scored_images(
    trained: SampleIndex, *, data: str | None, root: str | None, split: str | None, watch: Watch
) -> SampleIndex | None:
    """The split that goes with the images that a student is trained on; None where there is no such split.

    `data` is what the latter were opened by, None where they were found by their digest; split None takes val, else
    test. Raises MismatchError if its classes are not those of the training split, and what `data.open_split` raises.
    """
    from cskd_pipeline.data import data_source, open_split

    source = data or data_source(trained)
    split = split or split_to_score(source, root)
    if split is None:
        return None
    index = open_split(source, split, root=root, progress=counting(f"index {split}", watch))
    if len(index.classes) != len(trained.classes):
        raise MismatchError(
            f"split {split} has {len(index.classes)} classes, the training split has {len(trained.classes)}; give both "
            "the same class list"
        )
    require_same_classes(trained.classes, index, known_by="the training split")
    return index


def require_same_classes(trained: tuple[str, ...], index: SampleIndex, *, known_by: str) -> None:
    """Raise MismatchError unless as many classes, known by these names elsewhere, are those of `index` in its order.

    Where one of both has but numbers for names, there is nothing to compare, unless they have the same ones in another
    order. A class may be called by any column of the class list that lies beside the data.
    """
    from cskd_pipeline.data import class_forms

    numbers = tuple(map(str, range(len(trained))))
    if trained == index.classes or len(trained) != len(index.classes):
        return
    if numbers in (trained, index.classes) and sorted(trained) != sorted(index.classes):
        return
    forms = class_forms(index)
    differing = [label for label, name in enumerate(trained) if name not in forms[label]]
    if not differing:
        return
    label = differing[0]
    how = "in order" if set(trained) <= {form for each in forms for form in each} else "by name"
    raise MismatchError(
        f"{len(differing)} of {len(trained)} classes are not those of {known_by} {how}: label {label} is "
        f"{trained[label]!r} there and {index.classes[label]!r} in {index.name} {index.split}; a classes.txt beside "
        "the data sets their order, and further names of each, separated by tabs"
    )


def other_classes(digest: str, index: SampleIndex) -> str:
    """How the classes of `index` differ from those of the data with another digest, as far as that can be told."""
    from cskd_pipeline.data import known_classes

    known = known_classes(digest) if digest != index.digest else None
    pairs = enumerate(zip(known or (), index.classes, strict=False))
    return next(
        (f"; label {label} was {old!r} then and is {new!r} here" for label, (old, new) in pairs if old != new), ""
    )


def evaluation_set(
    model: nn.Module, index: SampleIndex, *, size: int, crop_pct: float, device: torch.device, workers: int, batch: int
) -> EvaluationSet:
    """Centre crops of these images, normalised as `model` expects, each of them on one rank."""
    from cskd_pipeline.loading import EvaluationSet
    from cskd_pipeline.models.normalisation import normalisation
    from cskd_pipeline.runtime.ranks import rank, world_size

    mean, std = normalisation(model)
    return EvaluationSet(
        index=index,
        size=size,
        crop_pct=crop_pct,
        mean=mean,
        std=std,
        device=device,
        batch=batch,
        workers=workers,
        rank=rank(),
        world=world_size(),
    )
