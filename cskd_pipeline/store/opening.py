"""Opening a store's root: what is there, and whether this release can read it."""

from __future__ import annotations

import contextlib
from typing import Any

from cskd_pipeline.errors import CskdError, DataError, MismatchError, UsageError
from cskd_pipeline.storage import ReadOnly, Storage
from cskd_pipeline.store import layout
from cskd_pipeline.store.commit import Commit
from cskd_pipeline.store.header import FORMAT, FORMAT_VERSION, StoreHeader
from cskd_pipeline.store.metadata import group_attributes, group_text


def is_store(storage: Storage) -> bool:
    """Whether there is a zarr group with our attributes."""
    return _attributes(storage, layout.METADATA).get("format") == FORMAT


def require_store_or_room(storage: Storage, *, out: str = "--out") -> None:
    """Raise DataError unless there is a label store (perhaps without its attributes) or room for a new one.

    `out` is the option that names the place, for the error.
    """
    if isinstance(storage, ReadOnly):
        storage.refuse()
    if is_store(storage) or first_commit(storage) is not None:
        return
    # An empty place will do, and so will leftovers of a store whose creation was cut off.
    leftover = (f"{layout.WRITERS}/", f"{layout.CLAIMS}/")
    other = any(not (file.name.startswith(leftover) or layout.may_lie_beside(file.name)) for file in storage.files())
    if other and not is_store(storage):  # another writer may have made it a moment ago
        raise DataError(f"{storage.address} exists and is no label store; give another {out}, or remove it")


def first_commit(storage: Storage) -> str | None:
    """The name of a commit file, or None. Whatever has one is a label store, even with damaged attributes."""
    for folder in storage.folders():
        if layout.seed_of(folder) is not None:
            for file in storage.files(f"{folder}/{layout.COMMITS}"):
                if layout.block_of(file.name.rpartition("/")[2]) is not None:
                    return file.name
    return None


def make_root(storage: Storage, header: StoreHeader, *, out: str) -> StoreHeader:
    """Make the root with these attributes, or find that it is there already; the attributes that it has.

    Raises:
        MismatchError: the store was made with other settings.
    """
    if not is_store(storage):
        commit = first_commit(storage)
        if commit is not None and not _commits_to(storage, commit, header):
            raise MismatchError(
                f"{storage.address} holds labels made with other settings, and its zarr.json, which says which, is "
                f"missing or damaged; give the settings that it was made with to write it again, or another {out}"
            )
        # If several writers begin at once, one makes it and the others compare. The file never disappears in between.
        text = group_text(header.to_json())
        if not storage.create(layout.METADATA, text) and not is_store(storage):
            storage.write(layout.METADATA, text)  # damaged
    remedy = f"use the same settings, or another {out} for a new store"
    found = read_header(storage)
    found.require_same(header, where=storage.address, remedy=remedy)
    return found


def read_header(storage: Storage) -> StoreHeader:
    """The header of a store.

    Raises:
        DataError: there is nothing, or something that is not a label store.
        MismatchError: the store was written by a newer version.
    """
    attributes = _attributes(storage, layout.METADATA)
    if attributes.get("format") != FORMAT:
        if first_commit(storage) is not None:
            raise DataError(
                f"{storage.at(layout.METADATA)} is missing or damaged; the labels beside it are not lost: "
                f"`cskd-pipeline repair {storage.address}` writes it again"
            )
        if next(storage.files(), None) is None:
            raise DataError(
                f"no label store at {storage.address}: it does not exist; make one with `cskd-pipeline precompute`"
            )
        raise DataError(
            f"{storage.address} is not a label store (no zarr group with format {FORMAT!r}); give the path of one"
        )
    version = attributes.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise MismatchError(
            f"{storage.address} has store format {version}, this version reads up to {FORMAT_VERSION}; upgrade "
            "cskd-pipeline"
        )
    try:
        return StoreHeader.from_json(attributes)
    except (UsageError, TypeError, KeyError) as error:
        raise DataError(
            f"the attributes of {storage.address} are damaged ({error}); `cskd-pipeline repair {storage.address}` "
            "takes them from one of its seeds"
        ) from error


def recover_root(storage: Storage) -> bool:
    """Write the root's attributes from a seed's copy unless a commit file confirms them; return whether it was needed.

    Every seed's group repeats the attributes. A commit file of the seed must confirm its copy.

    Raises:
        DataError: there is nothing, or the attributes cannot be read and no seed has them.
        MismatchError: the store was written by a newer version.
    """
    seeds = [folder for folder in storage.folders() if layout.seed_of(folder) is not None]
    problem: DataError | None = None
    try:
        header = read_header(storage)
        if first_commit(storage) is None or any(_confirmed(storage, folder, header) for folder in seeds):
            return False
    except DataError as error:
        problem = error
    for folder in seeds:
        try:
            header = StoreHeader.from_json(_attributes(storage, f"{folder}/{layout.METADATA}"))
        except (UsageError, TypeError, KeyError):
            continue
        if _confirmed(storage, folder, header):
            storage.write(layout.METADATA, group_text(header.to_json()))
            return True
    if problem is None:
        return False
    if first_commit(storage) is None:
        raise problem
    raise DataError(
        f"{storage.at(layout.METADATA)} is missing or damaged, and no seed repeats its attributes; the labels are not "
        "lost: the precompute command that made the store writes it again"
    ) from problem


def _confirmed(storage: Storage, folder: str, header: StoreHeader) -> bool:
    """Whether a commit file of this seed belongs to a store with this header."""
    return any(_commits_to(storage, file.name, header) for file in storage.files(f"{folder}/{layout.COMMITS}"))


def _commits_to(storage: Storage, commit: str, header: StoreHeader) -> bool:
    try:
        return Commit.parse(storage.read(commit, limit=layout.MAX_COMMIT_BYTES)).store == header.digest()
    except (CskdError, FileNotFoundError, ValueError):
        return False


def _attributes(storage: Storage, name: str) -> dict[str, Any]:
    with contextlib.suppress(DataError, FileNotFoundError, ValueError):
        return group_attributes(storage.read(name, limit=layout.MAX_METADATA_BYTES))
    return {}
