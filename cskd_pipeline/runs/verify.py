"""Check a label store against its checksums, and against its teacher."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from cskd_pipeline.errors import DataError
from cskd_pipeline.progress import Watch, silent
from cskd_pipeline.runs.imports import import_modules
from cskd_pipeline.runs.source import SourceSettings, store_job
from cskd_pipeline.runtime.allocator import keep_freed_memory
from cskd_pipeline.seeds import format_seeds
from cskd_pipeline.settings import setting

if TYPE_CHECKING:
    from cskd_pipeline.labelling.job import PrecomputeJob
    from cskd_pipeline.labelling.recompute import Recomputed
    from cskd_pipeline.store import BadFile, StoreReader

CROPS = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyRequest(SourceSettings):
    """Which store to check, and how thoroughly."""

    noun: ClassVar[str] = "verify"

    recompute: bool = setting(
        False,
        "Make and label random crops again, with the teacher that the store names; implied by the settings that say "
        "how.",
        group="labels",
    )
    crops: int | None = setting(None, "How many crops to recompute.", group="labels", shown=str(CROPS), low=1)
    key: int | None = setting(None, "Another number draws other crops.", group="labels", shown="0", low=0)
    allow_incomplete: bool = setting(False, "Seeds with missing blocks are no failure.", group="labels")

    @property
    def recomputes(self) -> bool:
        """Whether anything asks for crops to be recomputed."""
        how = (self.data, self.data_root, self.teacher_weights, self.teacher_entry, self.crops, self.key)
        return self.recompute or any(value is not None for value in how)


@dataclasses.dataclass(frozen=True, slots=True)
class Verified:
    """What was found.

    Attributes:
        store: as it was given.
        digest: of the store's content, see `StoreSummary`.
        blocks: committed blocks, all of whose files were compared with their checksums.
        blocks_per_seed: blocks of a complete seed.
        bad: files that are not what was committed, or do not belong to the store.
        incomplete: seed -> number of missing blocks, for seeds that lack any.
        recomputed: crops that were made and labelled again; None where that was not asked for, or files are bad.
        failures: what is wrong, a phrase each; empty where the store is sound.
    """

    store: str
    digest: str
    blocks: int
    blocks_per_seed: int
    bad: list[BadFile]
    incomplete: dict[int, int]
    recomputed: Recomputed | None
    failures: list[str]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        report: dict[str, Any] = {
            "blocks": self.blocks,
            "bad_files": [dataclasses.asdict(file) for file in self.bad],
            "incomplete": self.incomplete,
            "digest": self.digest,
        }
        return report if self.recomputed is None else report | dataclasses.asdict(self.recomputed)


def verify(
    store: str, request: VerifyRequest | None = None, /, *, progress: Watch = silent, **settings: Any
) -> Verified:
    """Compare every file of a store with its checksum, and on request random crops with the teacher.

    Takes a `VerifyRequest`, or its settings by name.

    Raises:
        DataError: there is no store, or what it was made of is not found.
        MismatchError: data or weights are not those that the store was made of.
        RetryError: storage is out of reach.
    """
    request = VerifyRequest.given(request, settings)
    keep_freed_memory()
    import_modules(request.imports)
    from cskd_pipeline.runtime.processors import worker_count
    from cskd_pipeline.store import StoreReader, check_files, check_tree, summarise

    reader = StoreReader(store)
    job = store_job(reader, request, watch=progress) if request.recomputes else None
    blocks, bad = 0, [*check_tree(reader)]
    for _, _, found in check_files(reader):
        blocks += 1
        bad += found
    missing = {seed: reader.header.blocks - len(done) for seed, done in reader.begun().items()}
    incomplete = {seed: count for seed, count in missing.items() if count}
    if not blocks and not bad:
        raise DataError(f"{store} holds no committed block; there is nothing to verify")
    failures = [f"bad files: {len(bad)}"] if bad else []
    if incomplete and not request.allow_incomplete:
        failures.append(
            f"{len(incomplete)} incomplete seeds ({format_seeds([*incomplete])}; precompute finishes them, "
            "--allow-incomplete lets them pass)"
        )
    again = None
    if job is not None and not bad:
        from cskd_pipeline.labelling.recompute import recompute

        crops = request.crops or CROPS
        progress(f"recomputing about {crops} crops, and those they are mixed with, by {job.teacher.spec.model}")
        again = recompute(job, reader, crops=crops, key=request.key or 0, workers=worker_count(request.workers))
        wrong = [name for name, values in again.fidelity.items() if values.get("agreement", 1) < 1]
        failures += [f"{name} targets are not the argmax of the teacher's logits" for name in wrong]
        if again.differences:
            count = f"{len(again.differences)} in {again.crops}"
            failures.append(f"differences: {count} recomputed crops{_changed_since(reader, job)}")
    return Verified(store, summarise(reader).digest, blocks, reader.header.blocks, bad, incomplete, again, failures)


def _changed_since(reader: StoreReader, job: PrecomputeJob) -> str:
    """What is not as it was when the store was written, and may explain a difference."""
    from cskd_pipeline.labelling.versions import versions
    from cskd_pipeline.store import summarise

    now = versions(job.teacher.device)
    changed = {
        f"{name} {then.get(name)} (now {value})"
        for then in summarise(reader).writers
        for name, value in now.items()
        if then.get(name) != value
    }
    return f"; the store was written with {', '.join(sorted(changed))}" if changed else ""
