"""The built-in data set `shapes`: drawn offline, once, into WebDataset shards that are read like any others."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

from cskd_pipeline.data.cache import cache_folder, put_folder
from cskd_pipeline.errors import UsageError

_SHARD_IMAGES = 1500
_QUALITY = 90
_DONE = "complete.json"

TRAIN_IMAGES = 6000
VAL_IMAGES = 1200


def write_shapes(
    folder: Path | None = None,
    *,
    train: int = TRAIN_IMAGES,
    val: int = VAL_IMAGES,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """The folder with `train-*.tar`, `val-*.tar` and `classes.txt`, written unless it is there and whole.

    A smaller set is the beginning of a larger one.

    Args:
        folder: where; default: a place in the cache that depends on the version and the sizes.
        train, val: how many images.
        progress: called with (done, total) images.

    Raises:
        UsageError: a size is below 1, or `folder` holds something else.
    """
    # Here, so that opening any other data set does not depend on it.
    from cskd_pipeline.data.shape_classes import OUTLINES
    from cskd_pipeline.data.shape_drawing import VERSION

    if train < 1 or val < 1:
        raise UsageError(f"shapes needs at least one image a split, found train {train} and val {val}")
    sizes = {"train": train, "val": val}
    if folder is None:
        folder = cache_folder("data", f"shapes-v{VERSION}") / f"train{train}-val{val}"
    if _whole(folder, sizes):
        return folder
    if folder.exists() and any(folder.iterdir()) and not (folder / _DONE).is_file():
        raise UsageError(f"{folder} exists and holds something other than shapes; name another folder")

    def draw(scratch: Path) -> None:
        (scratch / "classes.txt").write_text("".join(f"{name}\n" for name in OUTLINES), encoding="utf-8")
        done = 0
        for split, count in sizes.items():
            for start in range(0, count, _SHARD_IMAGES):
                end = min(start + _SHARD_IMAGES, count)
                _write_shard(scratch / f"{split}-{start // _SHARD_IMAGES:04d}.tar", split, range(start, end))
                done += end - start
                if progress is not None:
                    progress(done, train + val)
        shards = {file.name: file.stat().st_size for file in sorted(scratch.glob("*.tar"))}
        record = {"version": VERSION, "sizes": sizes, "shards": shards}
        (scratch / _DONE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    put_folder(folder, draw, keep=lambda there: _whole(there, sizes))
    return folder


def _write_shard(file: Path, split: str, indices: range) -> None:
    import webdataset
    from PIL import Image

    from cskd_pipeline.data.shape_drawing import draw_shape

    # Fixed owner and time: the same images give the same bytes.
    with file.open("wb") as stream, webdataset.TarWriter(stream, user="", group="", mtime=0, encoder=False) as shard:
        for index in indices:
            pixels, label = draw_shape(split, index)
            encoded = io.BytesIO()
            Image.fromarray(pixels).save(encoded, "JPEG", quality=_QUALITY)
            shard.write({"__key__": f"{split}-{index:06d}", "jpg": encoded.getvalue(), "cls": str(label).encode()})


def _whole(folder: Path, sizes: dict[str, int]) -> bool:
    try:
        record = json.loads((folder / _DONE).read_text(encoding="utf-8"))
        there = {name: (folder / name).stat().st_size for name in record["shards"]}
        return bool(record["sizes"] == sizes and record["shards"] == there)
    except (OSError, ValueError, KeyError, TypeError):
        return False
