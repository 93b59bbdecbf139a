"""A label store together with the images that its labels belong to, for any training loop."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cskd_pipeline.errors import MismatchError, UsageError
from cskd_pipeline.progress import Watch, silent
from cskd_pipeline.runs.data import CROP_PCT, evaluation_set, find_data, other_classes, scored_images
from cskd_pipeline.runs.source import origin
from cskd_pipeline.runtime.allocator import keep_freed_memory
from cskd_pipeline.settings import Seeds, checked_seeds

if TYPE_CHECKING:
    import torch
    from torch import nn

    from cskd_pipeline.batch import FeatureShape
    from cskd_pipeline.crops.recipe import CropRecipe
    from cskd_pipeline.data import SampleIndex
    from cskd_pipeline.loading import EvaluationSet
    from cskd_pipeline.models.student import Student
    from cskd_pipeline.objectives import Objective
    from cskd_pipeline.replay import ReplayLoader
    from cskd_pipeline.store import StoreReader


class Labels:
    """Stored labels and the images they belong to.

    Attributes:
        store: the label store, opened for reading; the first where there are several.
        stores: all label stores.
        index: the images, in the canonical order that the labels are stored in.
        recipe: the rule that makes the crops again.
    """

    def __init__(
        self,
        stores: Sequence[StoreReader],
        index: SampleIndex,
        *,
        data: str | None = None,
        data_root: str | None = None,
    ) -> None:
        """Join labels and images.

        Args:
            stores: opened for reading, with labels of the same crops.
            index: the images.
            data, data_root: what they were opened by, for `evaluation`; None looks for the other splits beside them.

        Raises:
            DataError: the store's attributes are damaged.
            MismatchError: the images are not those that the labels were made for, their labels or order differ, or
                the stores are of different crops.
        """
        self.stores, self.store, self.index = tuple(stores), stores[0], index
        self._data, self._data_root = data, data_root
        self.recipe: CropRecipe = origin(self.store.header, where=self.store.path)[1]
        found = {"samples": len(index), "classes": len(index.classes), "digest": index.digest}
        for store in stores:
            header = store.header
            for name, value in found.items():
                if header.data[name] != value:
                    raise MismatchError(
                        f"{store.path} was made for {header.data['name']} {header.data['split']} with {name} "
                        f"{header.data[name]}, {index.name} {index.split} has {name} {value}"
                        f"{other_classes(header.data['digest'], index)}; use the data that the labels belong to"
                    )
            for name, value in self.store.header.recipe.items():
                if header.recipe.get(name) != value:
                    raise MismatchError(
                        f"{self.store.path} and {store.path} are of different crops: {name} is {value} there, "
                        f"{header.recipe.get(name)} here; use stores of one recipe"
                    )

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W): the teacher's positions."""
        return self.store.header.grid

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return self.index.classes

    @property
    def encodings(self) -> dict[str, dict[str, Any]]:
        """Name of each kind of stored targets -> its settings."""
        return {name: values for store in reversed(self.stores) for name, values in store.header.encodings.items()}

    @property
    def features(self) -> FeatureShape:
        """Which features of the teacher are stored."""
        from cskd_pipeline.batch import FeatureShape

        pooled, tokens = (self.encodings.get(f"features.{kind}", {}) for kind in ("pooled", "tokens"))
        return FeatureShape(
            pooled=len(pooled["channels"]) if pooled else None,
            tokens=len(tokens["channels"][0]) if tokens else None,
            layers=tuple(tokens.get("layers", ())),
            grid=self.grid,
        )

    @property
    def size(self) -> int:
        """Side of the crops in pixels."""
        return self.recipe.size

    @property
    def seeds(self) -> Seeds:
        """The augmentation seeds that are complete in all stores, ascending. One is a view of every image."""
        return tuple(sorted(set.intersection(*(set(store.complete_seeds()) for store in self.stores))))

    def student(
        self,
        name: str,
        objective: Objective | None = None,
        *,
        args: Mapping[str, Any] | None = None,
        drop_path: float = 0.0,
        weights: str | os.PathLike[str] | None = None,
        entry: str | None = None,
        seed: int = 0,
        progress: Watch = silent,
    ) -> Student:
        """A student on the CPU for these labels: classes, grid and image size are theirs.

        Args:
            name: a timm model, or deit_ti, deit_s or deit_b.
            objective: gives the student the heads that it reads; None gives all that the model can have.
            args: further keyword arguments of timm.create_model.
            drop_path: stochastic depth rate.
            weights: file to start from, a folder of timm's `save_for_hf` or hf-hub:USER/NAME; classifiers for other
                classes start afresh.
            entry: where in the file they are, as "state_dict_ema"; None takes what published checkpoints use.
            seed: of the initial weights.
            progress: told which entry was taken, and which position embeddings were resampled.

        Raises:
            UsageError: timm has no such model, or it refuses the arguments or cannot be distilled into.
            MismatchError: it does not take crops of this size, or its patch tokens or last feature map do not pool to
                the grid.
            DataError: the weights are damaged or do not fit.
        """
        from cskd_pipeline.objectives import require_objective
        from cskd_pipeline.replay import require_stored

        if objective is not None:
            require_objective(objective)
            require_stored(self.stores, objective.needs, teachers=getattr(objective, "teachers", 1))
        return student_for(
            name,
            objective,
            size=self.size,
            classes=len(self.classes),
            grid=self.grid,
            features=self.features,
            args=args,
            drop_path=drop_path,
            weights=weights,
            entry=entry,
            seed=seed,
            watch=progress,
        )

    def loader(
        self,
        objective: Objective,
        student: nn.Module,
        *,
        batch_size: int,
        epochs: int,
        seeds: Seeds | Sequence[int] | str | None = None,
        repeats: int = 1,
        shuffle: Literal["full", "blocks"] | None = None,
        key: int = 0,
        accumulation: int = 1,
        canary: float = 0.01,
        workers: int | None = None,
        augment: Literal["workers", "device"] = "workers",
        scratch: str | os.PathLike[str] | None = None,
        device: torch.device | str | None = None,
    ) -> ReplayLoader:
        """Batches of (pixels, labels, targets) for a training loop: see `ReplayLoader`.

        Pixels are fp32 [B, 3, S, S], erased, mixed and normalised as `student` expects; labels are the true ones,
        mixed alike; targets are what `objective` reads.

        Args:
            objective: decides which targets are decoded, and the ratio of each epoch.
            student: its input normalisation is used, and its device.
            batch_size: crops per update, over all ranks and accumulated micro-batches.
            epochs: of the whole run, which the objective's schedule spans.
            seeds: of the store, cycled through epoch by epoch; by default all complete ones.
            repeats: seeds shown in an epoch (repeated augmentation).
            shuffle: "full", or by "blocks" of consecutive samples; default "blocks" with repeats, else "full".
            key: of the shuffle.
            accumulation: micro-batches per update.
            canary: share of the crops whose pixels are compared with the store's checksums, 0 to 1.
            workers: processes that read images, 0 for none; None chooses by the machine.
            augment: where RandAugment runs, in the "workers" or on the "device".
            scratch: folder for decoded labels; None chooses one.
            device: where the batches are put; None is the student's.

        Raises:
            UsageError: the numbers do not fit together.
            DataError: a seed is incomplete or damaged.
            MismatchError: the store does not hold what the objective reads.
        """
        from cskd_pipeline.models.normalisation import normalisation
        from cskd_pipeline.objectives import require_objective
        from cskd_pipeline.replay import Canary, ReplayLoader, stored_targets

        require_objective(objective)
        mean, std = normalisation(student)
        chosen = self.require_seeds(seeds)
        # Also for an objective that reads no targets: its crops are compared with the store all the same.
        provider = stored_targets(
            self.stores,
            needs=objective.needs,
            teachers=getattr(objective, "teachers", 1),
            canary=Canary(canary),
            scratch=None if scratch is None else Path(scratch),
        )
        return ReplayLoader(
            self.index,
            self.recipe,
            provider,
            objective,
            seeds=chosen,
            epochs=epochs,
            batch_size=batch_size,
            mean=mean,
            std=std,
            device=_device(student, device),
            repeats=repeats,
            shuffle=shuffle,
            key=key,
            accumulation=accumulation,
            workers=workers,
            augment=augment,
        )

    def evaluation(
        self,
        student: nn.Module,
        *,
        split: str | None = None,
        batch_size: int = 256,
        crop_pct: float = CROP_PCT,
        workers: int | None = None,
        device: torch.device | str | None = None,
        progress: Watch = silent,
    ) -> EvaluationSet:
        """Centre crops of the images to score on: batches of (pixels fp32 [B, 3, S, S], labels int64 [B]).

        `cskd_pipeline.evaluation.evaluate` scores a student on them; every image is on one rank.

        Args:
            student: its input normalisation is used, and its device.
            split: its name; None takes val, else test.
            batch_size: images in a batch.
            crop_pct: share of the image that the student sees.
            workers: processes that read images, 0 for none; None chooses by the machine.
            device: where the batches are put; None is the student's.
            progress: told how far the indexing of the images is.

        Raises:
            UsageError: the data has no such split, or a number is out of bounds.
            DataError: images are missing.
            MismatchError: the split has other classes.
        """
        from cskd_pipeline.record import require_range
        from cskd_pipeline.runtime.processors import worker_count

        require_range("--batch-size", batch_size, low=1, whole=True)
        require_range("--crop-pct", crop_pct, above=0, high=1)
        index = scored_images(self.index, data=self._data, root=self._data_root, split=split, watch=progress)
        if index is None:
            raise UsageError(f"{self.index.name} has neither a val nor a test split; name one with split=")
        return evaluation_set(
            student,
            index,
            size=self.size,
            crop_pct=crop_pct,
            device=_device(student, device),
            batch=batch_size,
            workers=min(4, worker_count(workers)),
        )

    def require_seeds(self, seeds: Seeds | Sequence[int] | str | None = None) -> Seeds:
        """These seeds, or by default all that are complete; raises DataError if one is not complete, or none is."""
        chosen = self.seeds if seeds is None else checked_seeds(seeds, option="--seeds")
        for store in self.stores:
            store.require_complete([*chosen] or store.seeds() or [0])
        if not chosen:
            raise MismatchError(
                f"no seed is complete in all of {', '.join(store.path for store in self.stores)}; `cskd-pipeline "
                "add-targets` makes those that one lacks"
            )
        return chosen


def student_for(
    name: str,
    objective: Objective | None,
    *,
    size: int,
    classes: int,
    grid: tuple[int, int] | None,
    features: FeatureShape | None = None,
    args: Mapping[str, Any] | None = None,
    drop_path: float = 0.0,
    weights: str | os.PathLike[str] | None = None,
    entry: str | None = None,
    seed: int = 0,
    watch: Watch = silent,
) -> Student:
    """A student that takes crops of `size` pixels and has the heads that an objective reads.

    A model with a fixed image size is built for `size`, unless `args` name one. An objective's own layers are made
    for a teacher with these `features`.

    Other arguments and errors are those of `models.student.create_student` and `Labels.student`.
    """
    from cskd_pipeline.models.student import add_adapter, can_be_distilled, create_student, fixed_size, other_size

    arguments = dict(args or {})

    def build(grid: tuple[int, int] | None, distillation: bool, seen: int | None, **start: Any) -> Student:
        return create_student(
            name,
            classes=classes,
            grid=grid,
            size=seen,
            args=arguments,
            drop_path=drop_path,
            distillation=distillation,
            layers=layers,
            seed=seed,
            **start,
        )

    layers: tuple[int, ...] = ()
    plain = build(None, False, None)
    takes = fixed_size(plain, size=size)
    if takes is not None and takes != (size, size):
        if "img_size" in arguments:
            raise other_size(size, takes)
        arguments["img_size"] = size
    dense = can_be_distilled(plain) if objective is None else objective.dense
    distilled = dense if objective is None else getattr(objective, "second_head", bool(objective.needs))
    layers = getattr(objective, "layers", ())
    start = {} if weights is None else {"weights": os.fspath(weights), "entry": entry, "watch": watch}
    student = build(grid if dense else None, distilled, size, **start)
    if layers:
        assert objective is not None and features is not None
        add_adapter(student, functools.partial(objective.adapter, teacher=features), seed=seed)
    return student


def _device(student: nn.Module, device: torch.device | str | None) -> torch.device:
    """That of a student's batches; errors as `choose_device`."""
    from cskd_pipeline.runtime.device import choose_device, device_of

    return choose_device(str(device_of(student) if device is None else device))


def open(
    store: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    data: str | os.PathLike[str] | None = None,
    data_root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    progress: Watch = silent,
) -> Labels:
    """The labels in a store, and the images that they belong to.

    Args:
        store: a path or URL, or several, with labels of the same crops.
        data: the images, as `--data` takes them; None finds them by the digest in the store.
        data_root: folder that holds a known data set; None is $CSKD_DATA_ROOT.
        split: of `data`; None is the split that the store names.
        progress: told how far the indexing of the images is.

    Raises:
        DataError: there is no store, it is damaged, or its data is not found.
        MismatchError: the images are not those that the labels were made for, or the stores are of different crops.
        RetryError: storage is out of reach.
    """
    from cskd_pipeline.store import StoreReader

    keep_freed_memory()
    places = [store] if isinstance(store, str | os.PathLike) else [*store]
    if not places:
        raise UsageError("no label store is given; name one or more")
    readers = [StoreReader(str(place)) for place in places]
    data, data_root = (None if place is None else str(place) for place in (data, data_root))
    index = find_data(readers[0].header.data, data=data, split=split, root=data_root, watch=progress)
    return Labels(readers, index, data=data, data_root=data_root)
