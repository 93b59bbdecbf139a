"""A page about label stores and runs, in one HTML file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cskd_pipeline.errors import CskdError, DataError, UsageError
from cskd_pipeline.progress import Watch, silent
from cskd_pipeline.runs.settings import DataSettings
from cskd_pipeline.settings import setting

if TYPE_CHECKING:
    from cskd_pipeline.data import SampleIndex
    from cskd_pipeline.pages.run import Run
    from cskd_pipeline.pages.store_part import StoreFindings
    from cskd_pipeline.store import StoreReader


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportRequest(DataSettings):
    """Where the page goes, and where the images are."""

    noun: ClassVar[str] = "report"

    out: Path = setting(help="The page, an HTML file; it is replaced.", group="output", metavar="FILE")
    crops: int = setting(8, "Crops of a store to show; 0 shows none and needs no images.", group="labels", low=0)


@dataclasses.dataclass(frozen=True, slots=True)
class Reported:
    """A page.

    Attributes:
        file: where it is.
        stores, runs: what it is about.
        missing: what it could not look at, a sentence each.
    """

    file: Path
    stores: tuple[str, ...]
    runs: tuple[str, ...]
    missing: tuple[str, ...]


def report(
    places: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    request: ReportRequest | None = None,
    /,
    *,
    progress: Watch = silent,
    **settings: Any,
) -> Reported:
    """Write a page about stores, runs, or both: one HTML file without scripts, that needs no network.

    Of a store it shows crops with their labels, how winners move with the ratio, agreement by position and class,
    bytes, fidelity and completeness; of runs their curves and results side by side, their settings and commands. Plots
    need matplotlib (`pip install 'cskd-pipeline[report]'`); without it they are left out.

    Args:
        places: stores and run folders.
        request: a `ReportRequest`, or its settings by name.
        progress: told what is looked at.

    Raises:
        UsageError: nothing to report on, or no file can be at `out`.
        DataError: a place is neither, or holds nothing yet.
        MismatchError: the images are not those of a store.
        RetryError: storage is full, read-only or out of reach.
    """
    request = ReportRequest.given(request, settings)
    from cskd_pipeline.pages.page import page
    from cskd_pipeline.pages.plots import can_plot
    from cskd_pipeline.pages.run_part import runs_part
    from cskd_pipeline.pages.store_part import store_part
    from cskd_pipeline.storage.durable import write_atomic

    given = [os.fspath(place) for place in ([places] if isinstance(places, str | os.PathLike) else places)]
    if not given:
        raise UsageError("report needs a label store or a run folder, or several")
    out = request.out
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder; give a file, such as {out / 'page.html'}")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"--out {out}: the folder {out.parent} does not exist; make it first")
    stores, runs = _opened(given)
    found = [_look(name, reader, request, progress) for name, reader in stores.items()]
    parts = [store_part(one) for one in found] + ([runs_part(list(runs.values()))] if runs else [])
    title = parts[0].heading if len(parts) == 1 else "Labels and runs" if runs else "Labels"
    text = page(parts, title=title, plots=can_plot())
    write_atomic(out, lambda file: file.write(text.encode()))
    return Reported(out, tuple(stores), tuple(runs), tuple(line for one in found for line in one.missing))


def _opened(places: Sequence[str]) -> tuple[dict[str, StoreReader], dict[str, Run]]:
    """The stores and the runs by what they are called."""
    from cskd_pipeline.pages.run import is_run, read_run
    from cskd_pipeline.storage import is_address
    from cskd_pipeline.store import StoreReader

    stores: dict[str, StoreReader] = {}
    runs: dict[str, Run] = {}
    for place in dict.fromkeys(places):
        if not is_address(place) and is_run(Path(place)):
            run = read_run(Path(place))
            if not run.settings and not run.rows:
                raise DataError(f"{place} holds a run that cannot be read: {'; '.join(run.unread)}")
            name = run.name if run.name not in runs else place
            runs[name] = dataclasses.replace(run, name=name)
            continue
        if not is_address(place) and Path(place).is_dir() and not (Path(place) / "zarr.json").exists():
            raise DataError(
                f"{place} is neither a label store nor a run folder; give one that precompute or train made"
            )
        stores[place] = StoreReader(place)
    return stores, runs


def _look(name: str, reader: StoreReader, request: ReportRequest, watch: Watch) -> StoreFindings:
    from cskd_pipeline.pages.examples import read_examples
    from cskd_pipeline.pages.sampled import sample_labels
    from cskd_pipeline.pages.store_part import StoreFindings
    from cskd_pipeline.runs.source import origin
    from cskd_pipeline.store import summarise

    summary, missing = summarise(reader), list[str]()
    _, recipe = origin(reader.header, where=reader.path)
    index = _images(reader, request, missing, watch)
    watch(f"looking at the labels in {name}")
    sampled = sample_labels(reader, recipe, index) if summary.crops else None
    if sampled is None:
        why = "it holds no targets that name classes" if summary.crops else "no block is committed yet"
        missing.append(f"Winners are not shown, for {why}.")
    else:
        missing += [f"Left out: {error}" for error in sampled.unread]
    examples = []
    if sampled is not None and index is not None and request.crops:
        try:
            examples = read_examples(reader, recipe, index, sampled, crops=request.crops)
        except CskdError as error:
            missing.append(f"Crops are not shown: {error}.")
    classes = None if index is None else index.classes
    return StoreFindings(Path(name).name, summary, sampled, examples, classes, missing)


def _images(reader: StoreReader, request: ReportRequest, missing: list[str], watch: Watch) -> SampleIndex | None:
    """The images of a store; None, with the reason, where they are looked for and not found."""
    from cskd_pipeline.runs.open import open as open_labels

    try:
        return open_labels(reader.path, data=request.data, data_root=request.data_root, progress=watch).index
    except DataError as error:
        if request.data is not None:
            raise
        missing.append(f"Crops, class names and true classes are not shown, for the images were not found: {error}.")
        return None
