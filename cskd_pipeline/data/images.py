"""Encoded images by where their bytes lie, read from files or from object storage."""

from __future__ import annotations

import contextlib
import os
import resource
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

from cskd_pipeline.errors import DataError
from cskd_pipeline.storage import FolderStorage, Storage
from cskd_pipeline.storage.durable import reading
from cskd_pipeline.storage.names import native

REQUESTS = 16
"""Concurrent requests to object storage."""

_CHANGED = "the data changed after it was indexed: restore it, or index it again"
_MOST_OPEN = 256
_GAP, _STRETCH = 32 << 10, 2 << 20
"""Largest gap in bytes between images that share a request, and largest request in bytes but for a single image."""


class Span(NamedTuple):
    """Where the bytes of an image lie.

    Attributes:
        file: the data file's name, relative to the data set's root.
        offset, length: in bytes.
    """

    file: str
    offset: int
    length: int


class ImageReader(Protocol):
    """Encoded images by their spans. Threads may share one."""

    def read(self, span: Span) -> bytes:
        """The bytes of a span.

        Raises:
            DataError: the file is gone or is not as it was indexed.
        """

    def read_all(self, spans: Sequence[Span]) -> Iterator[bytes]:
        """As `read` for each, in order; from object storage they are fetched together and kept until taken."""


def image_reader(root: Storage, *, whole: bool = False) -> ImageReader:
    """What reads images below `root`; `whole`: each is a file of its own, which must be as long as its image."""
    return _LocalFiles(root.root, whole=whole) if isinstance(root, FolderStorage) else _StoredRanges(root)


class _LocalFiles:
    """Reads by `pread`, which moves no file offset, so threads and forked workers can share the files.

    Files of many images are opened at their first use in a process and stay open, up to a bound that leaves room for
    others; those beyond it, and files of one image, are opened for every read.
    """

    def __init__(self, root: Path, *, whole: bool) -> None:
        self._root, self._whole = root, whole
        self._most = 0 if whole else _may_keep_open()
        self._open: dict[str, int] = {}
        weakref.finalize(self, _close_all, self._open)

    def read(self, span: Span) -> bytes:
        file = self._root / native(span.file)
        try:
            with reading(file), self._opened(span.file, file) as descriptor:
                data = os.pread(descriptor, span.length, span.offset)
                size = os.fstat(descriptor).st_size if self._whole else span.length
        except FileNotFoundError as error:
            raise DataError(f"{file} is gone; {_CHANGED}") from error
        if size != span.length:
            raise DataError(f"{file} has {size} bytes, {span.length} when indexed; {_CHANGED}")
        if len(data) != span.length:
            raise DataError(f"{file} gave {len(data)} of {span.length} bytes at {span.offset}; {_CHANGED}")
        return data

    def read_all(self, spans: Sequence[Span]) -> Iterator[bytes]:
        return map(self.read, spans)

    @contextlib.contextmanager
    def _opened(self, name: str, file: Path) -> Iterator[int]:
        descriptor = self._open.get(name)
        if descriptor is not None:
            yield descriptor
            return
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        if len(self._open) < self._most and self._open.setdefault(name, descriptor) == descriptor:
            yield descriptor
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _close_all(descriptors: dict[str, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)


def _may_keep_open() -> int:
    """How many files a reader keeps open: a quarter of the process's limit, after raising that as far as allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * _MOST_OPEN if hard < 0 else min(4 * _MOST_OPEN, hard)
    if 0 <= soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST_OPEN if soft < 0 else min(_MOST_OPEN, soft // 4)


class _StoredRanges:
    """Reads byte ranges of a storage's files, in threads that are started at the first use.

    One that was inherited by a fork is of no use.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._threads: ThreadPoolExecutor | None = None

    def read(self, span: Span) -> bytes:
        name, offset, length = span
        try:
            return self._storage.read_ranges(name, [(offset, offset + length)])[0] if length else b""
        except FileNotFoundError as error:
            raise DataError(f"{self._storage.at(name)} is gone; {_CHANGED}") from error
        except DataError as error:
            raise DataError(f"{error}; {_CHANGED}") from error

    def read_all(self, spans: Sequence[Span]) -> Iterator[bytes]:
        self._threads = self._threads or ThreadPoolExecutor(REQUESTS, thread_name_prefix="images")
        fetched: dict[Span, tuple[Future[bytes], int]] = {}
        for stretch in stretches(spans):
            future = self._threads.submit(self.read, stretch.whole)
            fetched |= dict.fromkeys(stretch.spans, (future, stretch.whole.offset))
        return self._parts(spans, fetched)

    def _parts(self, spans: Sequence[Span], fetched: dict[Span, tuple[Future[bytes], int]]) -> Iterator[bytes]:
        try:
            for span in spans:
                future, start = fetched[span]
                yield future.result()[span.offset - start :][: span.length]
        finally:
            for future, _ in fetched.values():
                future.cancel()


class Stretch(NamedTuple):
    """Images that are fetched together, and the bytes from the first's first to the last's last."""

    whole: Span
    spans: list[Span]


def stretches(spans: Sequence[Span]) -> list[Stretch]:
    """Requests that cover all these spans, ordered by the first span that each serves."""
    found: list[Stretch] = []
    for span in sorted(set(spans)):
        if found:
            (file, start, length), joined = found[-1]
            end = max(start + length, span.offset + span.length)
            if file == span.file and span.offset - start - length <= _GAP and end - start <= _STRETCH:
                found[-1] = Stretch(Span(file, start, end - start), [*joined, span])
                continue
        found.append(Stretch(span, [span]))
    turn = {span: number for number, span in reversed(list(enumerate(spans)))}
    return sorted(found, key=lambda stretch: min(turn[span] for span in stretch.spans))
