"""A copy of a split as tar shards in canonical order: consecutive samples lie side by side.

Who reads groups of consecutive samples (`--shuffle blocks`, every block of stage 1) then reads long stretches of few
files instead of many small files from anywhere, which is what spinning disks and network storage want.
"""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from cskd_pipeline.data.class_list import CLASSES_NAME, ClassList
from cskd_pipeline.data.listing import image_kind
from cskd_pipeline.data.sample_index import SampleIndex
from cskd_pipeline.errors import DataError, RetryError, UsageError

SHARD_SAMPLES = 8192

_AT_A_TIME = 64
_KINDS = (".jpg", ".png", ".webp")


def pack(
    index: SampleIndex,
    folder: Path,
    *,
    shard_samples: int = SHARD_SAMPLES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """The shards `SPLIT-000000.tar`, ..., written to `folder` beside `classes.txt`; images are copied as they are.

    Keys, labels and order are those of the index, and so is the digest: labels of the one are labels of the other.

    Args:
        index: what to copy.
        folder: where; made if need be. It may hold other splits of the same classes.
        shard_samples: samples a shard.
        progress: called with (done, total) samples.

    Raises:
        UsageError, DataError, RetryError: as `write_shards`.
    """

    def samples() -> Iterator[tuple[str, bytes, int]]:
        for first in range(0, len(index), _AT_A_TIME):
            portion = range(first, min(first + _AT_A_TIME, len(index)))
            for sample, data in zip(portion, index.read_all(portion), strict=True):
                yield index.key(sample), data, int(index.labels[sample])
                progress(sample + 1, len(index))

    classes = ClassList(tuple((name,) for name in index.classes))
    return write_shards(samples(), folder, split=index.split, classes=classes, shard_samples=shard_samples)


def write_shards(
    samples: Iterable[tuple[str, bytes, int]],
    folder: Path,
    *,
    split: str,
    classes: ClassList,
    shard_samples: int = SHARD_SAMPLES,
) -> list[Path]:
    """The shards `SPLIT-000000.tar`, ..., of samples (key, encoded image, label), in their order.

    Raises:
        UsageError: the folder holds this split already, or another data set.
        DataError: an image cannot be read, or its key cannot be told apart from an extension in a tar.
        RetryError: the folder cannot be written; nothing there is a shard yet (all get their names at the end), and the
            same call begins again.
    """
    content = _class_lines(classes)
    require_room(folder, split=split, classes=classes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CLASSES_NAME).write_bytes(content)
        written = []
        numbered = itertools.groupby(enumerate(samples), key=lambda sample: sample[0] // shard_samples)
        for number, shard in numbered:
            partial = folder / f"{split}-{number:06d}.tar.partial"
            with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive:
                for _, (key, data, label) in shard:
                    _add(archive, key, data, label)
            written.append(partial)
        # At the end, so that what was interrupted is not taken for the whole split.
        return [partial.rename(partial.with_suffix("")) for partial in written]
    except OSError as error:
        raise RetryError(
            f"cannot write to {folder} ({error.strerror or error}); free some space, or pack into another folder"
        ) from error


def require_room(folder: Path, *, split: str, classes: ClassList) -> None:
    """Raise UsageError if a folder holds shards of a split already, or a data set of other classes."""
    listed = folder / CLASSES_NAME
    if listed.exists() and listed.read_bytes() != _class_lines(classes):
        raise UsageError(f"{folder} holds a data set of other classes; name another folder")
    if any(folder.glob(f"{split}-{'[0-9]' * 6}.tar")):
        raise UsageError(f"{folder} holds shards of {split} already; name another folder, or remove them")


def _class_lines(classes: ClassList) -> bytes:
    content = "".join("\t".join(row) + "\n" for row in classes.rows).encode()
    if ClassList.parse(content, where=CLASSES_NAME).rows != classes.rows:
        raise DataError("a class's name holds a line break or a tab, or ends in a space; rename its folder")
    return content


def _add(archive: tarfile.TarFile, key: str, data: bytes, label: int) -> None:
    if "." in PurePosixPath(key).name:
        raise DataError(f"sample {key!r} has a dot in its name, which ends a key in a tar; rename the image")
    kind = image_kind(data[:16])
    if kind not in _KINDS:
        raise DataError(f"sample {key!r} is no JPEG, PNG or WebP{f' but {kind}' if kind else ''}; convert or remove it")
    for name, content in ((f"{key}{kind}", data), (f"{key}.cls", str(label).encode())):
        member = tarfile.TarInfo(name)  # no owner and no time: the same data give the same bytes
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
