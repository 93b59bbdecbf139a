"""A copy of a split as tar shards in canonical order: consecutive samples lie side by side.

Who reads groups of consecutive samples (`--shuffle blocks`, every block of stage 1) then reads long stretches of few
files instead of many small files from anywhere, which is what spinning disks and network storage want.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from cskd_pipeline.data.class_list import CLASSES_NAME, ClassList
from cskd_pipeline.data.sample_index import SampleIndex
from cskd_pipeline.errors import DataError, RetryError, UsageError

SHARD_SAMPLES = 8192

_AT_A_TIME = 64

_SUFFIXES = {b"\xff\xd8": "jpg", b"\x89P": "png", b"RI": "webp"}


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
        UsageError: the folder holds this split already, or another data set.
        DataError: an image cannot be read, or its key cannot be told apart from an extension in a tar.
        RetryError: the folder cannot be written; nothing there is a shard yet (all get their names at the end), and the
            same call begins again.
    """
    text = "".join(f"{name}\n" for name in index.classes)
    if ClassList.parse(text.encode(), where=CLASSES_NAME).names != index.classes:
        raise DataError("a class's name holds a line break or a tab, or ends in a space; rename its folder")
    classes = text.encode()
    named = folder / CLASSES_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if named.exists() and named.read_bytes() != classes:
            raise UsageError(f"{folder} holds a data set of other classes; name another folder")
        if any(folder.glob(f"{index.split}-{'[0-9]' * 6}.tar")):
            raise UsageError(f"{folder} holds shards of {index.split} already; name another folder, or remove them")
        named.write_bytes(classes)
        written = []
        for start in range(0, len(index), shard_samples):
            partial = folder / f"{index.split}-{start // shard_samples:06d}.tar.partial"
            with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive:
                stop = min(start + shard_samples, len(index))
                for first in range(start, stop, _AT_A_TIME):
                    portion = range(first, min(first + _AT_A_TIME, stop))
                    for sample, data in zip(portion, index.read_all(portion), strict=True):
                        _add(archive, index, sample, data)
                        progress(sample + 1, len(index))
            written.append(partial)
        # At the end, so that what was interrupted is not taken for the whole split.
        return [partial.rename(partial.with_suffix("")) for partial in written]
    except OSError as error:
        raise RetryError(
            f"cannot write to {folder} ({error.strerror or error}); free some space, or pack into another folder"
        ) from error


def _add(archive: tarfile.TarFile, index: SampleIndex, sample: int, data: bytes) -> None:
    key = index.key(sample)
    if "." in PurePosixPath(key).name:
        raise DataError(f"sample {key!r} has a dot in its name, which ends a key in a tar; rename the image")
    suffix = _SUFFIXES.get(data[:2])
    if suffix is None:
        raise DataError(f"sample {key!r} of {index.file(sample)} is no JPEG, PNG or WebP; index the data again")
    for name, content in ((f"{key}.{suffix}", data), (f"{key}.cls", str(int(index.labels[sample])).encode())):
        member = tarfile.TarInfo(name)  # no owner and no time: the same data give the same bytes
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
