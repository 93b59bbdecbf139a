"""Which writer is working on which block, so that many writers share a store without doing work twice.

A claim is a small file that only one writer can create; it names that writer. A writer shows that it is alive by
rewriting its own file every few seconds, its heartbeat. Any writer may take over the claim of a dead one. No clocks of
different machines are compared: a writer is dead when it has certainly ended on this machine, when its file is gone,
or when the observer has not seen its file change for a while.

Claims only save work: blocks are written whole and have the same bytes from any writer, so two writers of one block
do no harm.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Self

from cskd_pipeline.errors import CskdError, DataError
from cskd_pipeline.runtime.process_name import has_ended, process_name, process_of
from cskd_pipeline.storage import Storage, StoredFile
from cskd_pipeline.store import layout
from cskd_pipeline.store.metadata import parse_json

BEAT_S = 10.0
EXPIRY_S = 60.0
"""Seconds without a heartbeat after which a writer's claims are free."""
HANG_S = 1800.0
"""Seconds without progress after which a writer stops its heartbeat: it may hang in a driver forever."""

_MAX_BYTES = 1 << 16
_CLAIM = re.compile(re.escape(layout.CLAIMS) + r"/(\d{6,9})-(\d{6,12})\.json")


class LostClaimError(Exception):
    """Another writer took over the block, because this one gave no heartbeat for too long."""


@dataclasses.dataclass(frozen=True, slots=True)
class WriterStatus:
    """What a writer reports about itself.

    Attributes:
        beat: counts heartbeats.
        crops, seconds: made and worked so far.
        seeds: the seeds it was asked for, as on the command line.
        unix_time: of the heartbeat, by the writer's clock.
    """

    name: str
    host: str
    beat: int
    crops: int
    seconds: float
    seeds: str
    unix_time: float

    def __post_init__(self) -> None:
        numbers = (self.beat, self.crops, self.seconds, self.unix_time)
        plain = all(isinstance(number, int | float) and abs(number) < 1 << 60 for number in numbers)
        if not plain or not all(isinstance(text, str) for text in (self.name, self.host, self.seeds)):
            raise ValueError("it is not what a writer says of itself")


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """A claimed block, and the name of its writer; "" if the claim cannot be read."""

    seed: int
    block: int
    writer: str


class Claims:
    """One writer's claims on the blocks of a store. A context manager: claims and heartbeats end with it."""

    def __init__(
        self,
        storage: Storage,
        *,
        name: str | None = None,
        seeds: str = "",
        beat_s: float = BEAT_S,
        expiry_s: float = EXPIRY_S,
        hang_s: float = HANG_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without claims on the store at `storage`.

        `name` is of this writer, from `process_name`; `seeds`, those it was asked for, is what `status` shows.
        """
        self._storage, self._seeds, self._now = storage, seeds, now
        self._beat_s, self._expiry_s, self._hang_s = beat_s, expiry_s, hang_s
        self.name = name or process_name()
        self._began = self._progressed = now()
        self._crops = self._beats = 0
        self._held: set[tuple[int, int]] = set()
        self._seen: dict[str, tuple[str, float]] = {}
        self._known: dict[str, tuple[str, str]] = {}
        self._looked, self._dead = -math.inf, set[tuple[int, int]]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True, name="claims")

    def __enter__(self) -> Self:
        self._beat()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(CskdError):  # others find out anyway; the error that ended this matters more
            for unit in [*self._held]:
                self.release(*unit)
            self._storage.delete(_writer_file(self.name))

    def progress(self, crops: int) -> None:
        """Record that more crops were made."""
        self._crops += crops
        self._progressed = self._now()

    def take(self, seed: int, block: int) -> bool:
        """Claim the block; return False if another writer, which may be alive, has it."""
        name = _claim_name(seed, block)
        content = json.dumps({"writer": self.name}).encode()
        if not self._storage.create(name, content, durable=False):
            holder = _holder(self._storage, name)
            if holder is not None and not self.is_dead(holder or name):
                self._dead.discard((seed, block))  # its holder is not dead after all
                return False
            if holder is not None and _holder(self._storage, name) == holder:  # nobody else was faster
                self._storage.delete(name)
            if not self._storage.create(name, content, durable=False):
                self._dead.discard((seed, block))
                return False
        self._held.add((seed, block))
        self._dead.discard((seed, block))
        return True

    def confirm(self, seed: int, block: int) -> None:
        """Raise LostClaimError unless this writer still has its claim on the block."""
        if (seed, block) not in self._held or _holder(self._storage, _claim_name(seed, block)) != self.name:
            self._held.discard((seed, block))
            raise LostClaimError(f"seed {seed} block {block}")

    def release(self, seed: int, block: int) -> None:
        """Release a claim, if it is still this writer's."""
        if (seed, block) in self._held:
            self._held.discard((seed, block))
            name = _claim_name(seed, block)
            if _holder(self._storage, name) == self.name:
                self._storage.delete(name)

    def others(self) -> set[tuple[int, int]]:
        """The blocks claimed by writers that may be alive, including this one; checked once per heartbeat."""
        now = self._now()
        if now - self._looked >= self._beat_s:
            self._looked = now
            signs = _signs(self._storage)
            holders = self._holders()
            self._dead = {unit for unit, holder in holders.items() if self.is_dead(holder, signs)}
            taken = {*holders}
        else:
            taken = {unit for unit, _ in _claim_files(self._storage)}
        return taken - self._dead

    def is_dead(self, writer: str, signs: Mapping[str, str] | None = None) -> bool:
        """Whether a writer is dead, as far as this one can tell by now.

        `writer` is its name, or that of an unreadable claim; `signs` what `_signs` gave, if already listed.
        """
        if writer == self.name:
            return False
        if has_ended(writer):
            return True
        sign = (_signs(self._storage) if signs is None else signs).get(writer)
        if sign is None:
            if not writer.startswith(layout.CLAIMS):
                return True  # it exited cleanly, or was cleared
            sign = ""
        now = self._now()
        last, since = self._seen.setdefault(writer, (sign, now))
        if last != sign:
            self._seen[writer] = (sign, now)
            return False
        return now - since >= self._expiry_s

    def clear_dead(self) -> None:
        """Remove the claims and the files of dead writers."""
        signs = _signs(self._storage)
        for unit, holder in self._holders().items():
            name = _claim_name(*unit)
            if self.is_dead(holder, signs) and (_holder(self._storage, name) or name) == holder:
                self._storage.delete(name)
        for writer in signs:
            if self.is_dead(writer, signs):
                self._storage.delete(_writer_file(writer))

    def _holders(self) -> dict[tuple[int, int], str]:
        """Claimed block -> its writer, or the claim's name if it cannot be read; each claim is read once."""
        known, self._known = self._known, {}
        holders = {}
        for unit, file in _claim_files(self._storage):
            if file.name in known and known[file.name][0] == file.version:
                writer = known[file.name][1]
            else:
                found = _holder(self._storage, file.name)
                if found is None:
                    continue  # given back meanwhile
                writer = found or file.name
            self._known[file.name] = (file.version, writer)
            holders[unit] = writer
        return holders

    def _keep_beating(self) -> None:
        while not self._stop.wait(self._beat_s):
            if self._now() - self._progressed < self._hang_s:
                with contextlib.suppress(CskdError):  # if it persists, the work itself will fail
                    self._beat()

    def _beat(self) -> None:
        self._beats += 1
        seconds = self._now() - self._began
        status = WriterStatus(
            self.name, socket.gethostname(), self._beats, self._crops, seconds, self._seeds, time.time()
        )
        content = json.dumps(dataclasses.asdict(status)).encode()
        self._storage.write(_writer_file(self.name), content, durable=False)


def forget_process(storage: Storage, process: str) -> None:
    """Free what a process that is known to be dead has claimed, at once for everybody: claims go, then its own files.

    `process` is as of `this_process`. Where it lives on after all, nothing is written twice: `Claims.confirm` tells it
    that its claims are gone.
    """
    for claim in list_claims(storage):
        if process_of(claim.writer) == process:
            storage.delete(_claim_name(claim.seed, claim.block))
    for writer in list_writers(storage):
        if process_of(writer) == process:
            storage.delete(_writer_file(writer))


def list_claims(storage: Storage) -> list[Claim]:
    """All claims on a store, of live and dead writers."""
    found = [(unit, _holder(storage, file.name)) for unit, file in _claim_files(storage)]
    return [Claim(*unit, writer) for unit, writer in found if writer is not None]


def list_writers(storage: Storage) -> list[str]:
    """The names of all writers that have not exited cleanly."""
    return [*_signs(storage)]


def read_writer(storage: Storage, writer: str) -> WriterStatus | None:
    """A writer's last report; None if it exited cleanly, or its file cannot be read."""
    try:
        return WriterStatus(**parse_json(storage.read(_writer_file(writer), limit=_MAX_BYTES)))
    except (FileNotFoundError, DataError, ValueError, TypeError):
        return None


def _signs(storage: Storage) -> dict[str, str]:
    """Name of every writer that has not exited cleanly -> version of its file, which every heartbeat changes."""
    files = [file for file in storage.files(layout.WRITERS) if file.name.endswith(".json")]
    return {file.name.rpartition("/")[2].removesuffix(".json"): file.version for file in files}


def _claim_files(storage: Storage) -> Iterator[tuple[tuple[int, int], StoredFile]]:
    for file in storage.files(layout.CLAIMS):
        match = _CLAIM.fullmatch(file.name)
        if match:
            yield (int(match[1]), int(match[2])), file


def _claim_name(seed: int, block: int) -> str:
    return f"{layout.CLAIMS}/{seed:06d}-{block:06d}.json"


def _writer_file(writer: str) -> str:
    return f"{layout.WRITERS}/{writer}.json"


def _holder(storage: Storage, name: str) -> str | None:
    """The writer in the claim of this name; "" if it cannot be read, None if there is none (any more)."""
    try:
        writer = parse_json(storage.read(name, limit=_MAX_BYTES))["writer"]
    except FileNotFoundError:
        return None
    except (DataError, ValueError, KeyError, TypeError):
        return ""
    return writer if isinstance(writer, str) and "/" not in writer and len(writer) < 256 else ""
