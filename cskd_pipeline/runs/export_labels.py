"""Copy a label store, or a part of it, to publish it."""

from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING, Any, ClassVar

from cskd_pipeline.errors import DataError
from cskd_pipeline.labels.choice import target_settings
from cskd_pipeline.progress import Watch, silent
from cskd_pipeline.runs.data import counting
from cskd_pipeline.seeds import format_seeds
from cskd_pipeline.settings import Seeds, Settings, setting

if TYPE_CHECKING:
    from cskd_pipeline.publish import Copied
    from cskd_pipeline.storage import Storage
    from cskd_pipeline.store import StoreReader, StoreSummary


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportLabelsRequest(Settings):
    """Which part of a store to copy, and under which licence."""

    noun: ClassVar[str] = "export-labels"

    seeds: Seeds | None = setting(
        None,
        "Complete seeds to copy: 7, 0:30 (30 not included) or 0:10,20.",
        group="labels",
        metavar="LIST",
        shown="all complete ones",
    )
    targets: str | None = setting(
        None, "Targets to copy, such as hard or hard,soft.", group="labels", metavar="LIST", shown="what the store has"
    )
    license: str | None = setting(
        None,
        "Licence of the labels, for the card: an identifier such as cc-by-nc-4.0, or any text.",
        group="output",
        metavar="TEXT",
        shown="other",
    )
    private: bool = setting(False, "A data set that is made on the hub is private.", group="output")


@dataclasses.dataclass(frozen=True, slots=True)
class ExportedLabels:
    """A copy.

    Attributes:
        summary: of the copy, all its seeds included.
        copied: what this call did.
        card_written: whether its card was written; one that somebody changed is left alone.
    """

    summary: StoreSummary
    copied: Copied
    card_written: bool


def export_labels(
    store: str, out: str, request: ExportLabelsRequest | None = None, /, *, progress: Watch = silent, **settings: Any
) -> ExportedLabels:
    """Copy complete seeds of a store, each file compared with its checksum on the way, and write a card beside them.

    Takes an `ExportLabelsRequest`, or its settings by name. `out` is a new path or URL, or a copy to add to;
    for hf://USER/NAME the copy is made in the cache, uploaded in one commit and removed.

    Raises:
        UsageError: there is no such target, or the licence is empty.
        DataError: a seed is incomplete, or a file is damaged.
        MismatchError: the store at `out` is another one.
        RetryError: storage is full, read-only or out of reach.
    """
    request = ExportLabelsRequest.given(request, settings)
    from cskd_pipeline.data.cache import cache_folder
    from cskd_pipeline.publish import copy_seeds, require_license, write_card
    from cskd_pipeline.storage import FolderStorage, HubStorage, ReadOnly, open_storage, write_file_list
    from cskd_pipeline.store import StoreReader, read_teacher_check, summarise, write_teacher_check

    encodings = None if request.targets is None else [*target_settings(request.targets, ())]
    require_license(request.license)
    target: Storage = open_storage(out)
    hub, staged = None, None
    reader = StoreReader(store)
    if isinstance(target, HubStorage):
        hub, staged = target, cache_folder("uploads", target.repository.replace("/", "--"))
        hub.stage(staged, private=request.private)
        target = FolderStorage(staged)
    elif isinstance(target, ReadOnly):
        target.refuse()
    copied = copy_seeds(
        reader,
        target,
        _complete_seeds(reader, progress) if request.seeds is None else [*request.seeds],
        encodings=encodings,
        progress=counting("copy", progress, unit="byte"),
        report=progress,
    )
    if (check := read_teacher_check(reader.storage)) is not None:
        write_teacher_check(target, check)
    summary = summarise(StoreReader(target))
    written = write_card(target, summary, license=request.license)
    if not written:
        progress(f"{target.at('README.md')} was left as it is, since this command did not write it")
    write_file_list(target)
    if hub is not None and staged is not None:
        progress(f"uploading to {out}")
        hub.upload(staged, message=f"Labels of seeds {format_seeds(summary.complete)}")
        shutil.rmtree(staged)
        summary = dataclasses.replace(summary, path=out)
    return ExportedLabels(summary, copied, written)


def _complete_seeds(reader: StoreReader, watch: Watch) -> list[int]:
    """All that a store has; says which are left out."""
    begun, blocks = reader.begun(), reader.header.blocks
    complete = [seed for seed, done in begun.items() if len(done) == blocks]
    if not complete:
        raise DataError(f"{reader.path} has no complete seed; `cskd-pipeline precompute` finishes one")
    for seed, done in begun.items():
        if len(done) < blocks:
            watch(f"seed {seed} is left out: it is incomplete, {len(done)} of {blocks} blocks")
    return complete
