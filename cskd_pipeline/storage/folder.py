"""Files in a folder of a file system."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from cskd_pipeline.errors import DataError, RetryError
from cskd_pipeline.runtime.process_name import has_ended, process_name
from cskd_pipeline.storage.durable import half_written, reading, sync, writing
from cskd_pipeline.storage.names import native, utf8
from cskd_pipeline.storage.storage import StoredFile

Result = TypeVar("Result")

HALF_WRITTEN = ".writing"
"""Folder in which files are written before they are renamed into place; names start with the writing process's."""

_ABANDONED_S = 86_400.0
"""Age at which a half-written file is removed although its writer, on another machine or boot, may be alive."""

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""Error numbers by which file systems say that they have no hard links."""


class FolderStorage:
    """A folder of a local or network file system; created by the first write."""

    def __init__(self, root: Path) -> None:
        """Use the folder at `root`, which need not exist yet."""
        self.root = root.absolute()
        self._writer, self._pid = "", 0

    @property
    def address(self) -> str:
        """The absolute path."""
        return utf8(self.root)

    def free_bytes(self) -> int | None:
        """Those of the file system that the folder is on, or will be."""
        there = next(folder for folder in (self.root, *self.root.parents) if folder.exists())
        try:
            return shutil.disk_usage(there).free
        except OSError:  # it will be said when something is read or written
            return None

    def at(self, name: str) -> str:
        """The path of a file."""
        return utf8(self._path(name))

    def _path(self, name: str) -> Path:
        return self.root / native(name) if name else self.root

    def read(self, name: str, *, limit: int) -> bytes:
        """See `Storage`."""

        def read() -> bytes:
            with self._opened(name) as (descriptor, size):
                if size > limit:
                    raise DataError(f"{self.at(name)} has {size:,} bytes, at most {limit:,} are expected")
                content = _pread(descriptor, 0, size)
            if len(content) < size:
                raise RetryError(f"{self.at(name)} changed while it was read; run the same command again")
            return content

        return _past_stale(read)

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """See `Storage`."""

        def read() -> list[bytes]:
            with self._opened(name) as (descriptor, size):
                end = max((stop for _, stop in ranges), default=0)
                if end > size:
                    raise DataError(f"{self.at(name)} has {size:,} bytes, {end:,} are expected")
                return [_pread(descriptor, start, stop - start) for start, stop in ranges]

        return _past_stale(read)

    def size(self, name: str) -> int | None:
        """See `Storage`."""
        with reading(self.at(name)):
            try:
                found = self._path(name).stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            return found.st_size if stat.S_ISREG(found.st_mode) else None

    def write(self, name: str, content: bytes, *, durable: bool = True) -> None:
        """See `Storage`."""
        with writing(self.at(name)), self._half_written(name, content, durable=durable) as temporary:
            temporary.replace(self._path(name))
            if durable:
                self._sync_above(name)

    def create(self, name: str, content: bytes, *, durable: bool = True) -> bool:
        """See `Storage`."""
        with writing(self.at(name)), self._half_written(name, content, durable=durable) as temporary:
            try:
                _link(temporary, self._path(name))
            except FileExistsError:
                return False
            if durable:
                self._sync_above(name)
            return True

    def delete(self, name: str, *, durable: bool = False) -> None:
        """See `Storage`."""
        with writing(self.at(name)):
            self._path(name).unlink(missing_ok=True)
            if durable and self._path(name).parent.is_dir():
                sync(self._path(name).parent)

    def files(self, folder: str = "", *, deep: bool = True) -> Iterator[StoredFile]:
        """See `Storage`."""
        if not folder and self.root.is_file():
            yield _stored("", self.root.stat())
        with reading(self.at(folder)):
            for file in _walk(self._path(folder), f"{folder}/" if folder else "", deep=deep):
                if not file.name.startswith(HALF_WRITTEN + "/"):
                    yield file

    def folders(self, folder: str = "") -> list[str]:
        """See `Storage`."""
        with reading(self.at(folder)):
            try:
                with os.scandir(self._path(folder)) as entries:
                    found = sorted(utf8(entry.name) for entry in entries if entry.is_dir())
            except (FileNotFoundError, NotADirectoryError):
                return []
        return [name for name in found if folder or name != HALF_WRITTEN]

    def sweep(self) -> None:
        """See `Storage`."""
        folder = self.root / HALF_WRITTEN
        if not folder.is_dir():
            return
        with writing(folder), os.scandir(folder) as entries:
            with tempfile.NamedTemporaryFile(dir=folder, prefix=process_name() + ".") as probe:
                now = os.fstat(probe.fileno()).st_mtime  # by the clock of the storage
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    old = now - entry.stat().st_mtime > _ABANDONED_S
                    if old or has_ended(entry.name.partition(".")[0]):
                        Path(entry.path).unlink()

    @contextlib.contextmanager
    def _half_written(self, name: str, content: bytes, *, durable: bool) -> Iterator[Path]:
        """A temporary file with this content, to be renamed to `name`, whose folder is created."""
        target = self._path(name)
        if self._pid != os.getpid():
            self._writer, self._pid = process_name(), os.getpid()
        temporary = self.root / HALF_WRITTEN / f"{self._writer}.{secrets.token_hex(4)}"
        for folder in (temporary.parent, target.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with half_written(temporary, lambda file: file.write(content), durable=durable):
            yield temporary

    def _sync_above(self, name: str) -> None:
        """Make the folder entries that lead to a file durable."""
        folder = self._path(name).parent
        while True:
            sync(folder)
            if folder in (self.root, folder.parent):
                break
            folder = folder.parent
        with contextlib.suppress(PermissionError):  # it may be another's, who lets nobody list it
            sync(self.root.parent)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[tuple[int, int]]:
        """Descriptor and size of a regular file."""
        path = self._path(name)
        with reading(self.at(name)):
            try:  # without waiting: a pipe without a writer would block for ever
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except NotADirectoryError as error:
                raise FileNotFoundError(error.errno, error.strerror, str(path)) from error
            try:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):
                    raise DataError(f"{path} is no plain file; restore it from a copy, or remove it")
                yield descriptor, found.st_size
            finally:
                os.close(descriptor)


def _past_stale(read: Callable[[], Result]) -> Result:
    """Call `read`, and again if NFS reports that the file was replaced meanwhile (ESTALE)."""
    for _ in range(2):
        try:
            return read()
        except RetryError as error:
            if getattr(error.__cause__, "errno", None) != errno.ESTALE:
                raise
    return read()


def _link(temporary: Path, target: Path) -> None:
    """Rename a file into place unless a file of that name exists."""
    try:
        os.link(temporary, target)  # unlike a rename it replaces nothing
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # For a moment the file is empty, and a reader would take it for damaged.
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        temporary.replace(target)


def _pread(descriptor: int, start: int, length: int) -> bytes:
    parts = []
    while length > 0 and (part := os.pread(descriptor, min(length, 1 << 30), start)):
        parts.append(part)
        start, length = start + len(part), length - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _stored(name: str, found: os.stat_result) -> StoredFile:
    return StoredFile(name, found.st_size if stat.S_ISREG(found.st_mode) else -1, str(found.st_mtime_ns))


def _walk(folder: Path, prefix: str, *, deep: bool) -> Iterator[StoredFile]:
    try:
        with os.scandir(folder) as opened:
            entries = sorted(opened, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        # A seed may be a link to another disk; links below it lead in circles, or anywhere.
        if entry.is_dir(follow_symlinks=not prefix):
            if deep:
                yield from _walk(Path(entry.path), f"{prefix}{utf8(entry.name)}/", deep=True)
        else:
            try:
                yield _stored(prefix + utf8(entry.name), entry.stat())
            except OSError as error:
                if not entry.is_symlink() and isinstance(error, FileNotFoundError):
                    continue  # removed meanwhile
                if error.errno not in (errno.ELOOP, errno.ENOENT):
                    raise
                yield StoredFile(prefix + utf8(entry.name), -1, "")
