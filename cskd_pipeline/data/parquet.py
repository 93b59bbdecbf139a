"""Parquet files with images in them, as the Hugging Face hub has them, copied to tar shards.

Their images cannot be read one by one in any order, so they are not read in place. This file is the project's only door
to pyarrow.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cskd_pipeline.data.class_list import CLASSES_NAME, ClassList, some
from cskd_pipeline.data.listing import IMAGE_SUFFIXES, PARQUET_SUFFIX
from cskd_pipeline.data.pack import SHARD_SAMPLES, require_room, write_shards
from cskd_pipeline.data.source import SPLIT_WORDS, split_called
from cskd_pipeline.errors import DataError, UsageError, first_line, nearest
from cskd_pipeline.storage.names import native, utf8

if TYPE_CHECKING:
    import pyarrow as pa

_IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "pixel_values")
_LABELS = ("label", "labels", "cls", "class", "target", "category")
_KEYS = ("__key__", "key")
"""Names of columns, in the order of preference."""

_ODD_KEY = r"^$|^/|(^|/)\.|/$|//|\\|\.[^/]*$"
"""Not the key of a sample in a tar."""

_AT_A_TIME = 64
_LOOKED_AT = 256
"""Entries of a folder."""


@dataclasses.dataclass(frozen=True, slots=True)
class ParquetData:
    """Parquet files by split, and what their columns hold.

    Attributes:
        files: of each split, in their order.
        image, label: the columns; `nested` where the images are structs of bytes and path.
        key: the column of the keys; None where rows are numbered.
        classes: the classes' names.
        numbers: labels are numbers, not names.
        left_out: files of no split, beside those that have one.
    """

    files: Mapping[str, Sequence[Path]]
    image: str
    nested: bool
    label: str
    key: str | None
    classes: ClassList
    numbers: bool
    left_out: tuple[str, ...] = ()

    def pack(
        self,
        split: str,
        folder: Path,
        *,
        shard_samples: int = SHARD_SAMPLES,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Path]:
        """The shards of a split, written to `folder` beside `classes.txt`, in the order of the rows.

        Raises:
            DataError: a file is damaged, or a row has no image, no label or no key.
            UsageError, RetryError: as `pack.write_shards`.
        """
        samples = self._samples(split, progress)
        return write_shards(samples, folder, split=split, classes=self.classes, shard_samples=shard_samples)

    def rows(self, split: str) -> int:
        """The number of images of a split."""
        return sum(int(_opened(file).metadata.num_rows) for file in self.files[split])

    def require(self, splits: Sequence[str], folder: Path) -> None:
        """Raise, before anything is written, what `pack` would raise because of labels or of the folder.

        Raises:
            UsageError: a split is unknown, or `folder` holds it or another data set.
            DataError: labels are missing, or name no class.
        """
        for split in splits:
            if split not in self.files:
                have = list(self.files)
                raise UsageError(f"there is no split {split!r}{nearest(split, have)}; there is {', '.join(have)}")
            require_room(folder, split=split, classes=self.classes)
            for file in self.files[split]:
                labels = _read(file, [self.label]).column(0).unique().to_pylist()
                self._require_labels(labels, f"{self.label} of {split} in {file}")

    def _require_labels(self, labels: Sequence[Any], where: str) -> None:
        if None in labels or labels == [-1]:
            raise DataError(
                f"{where}: images without a label ({labels[0]}); name the splits that have labels with --split"
            )
        if self.numbers:
            wrong = [label for label in labels if not 0 <= label < len(self.classes)]
            if wrong:
                raise DataError(
                    f"{where}: labels {some([str(label) for label in sorted(wrong)])} for {len(self.classes)} classes "
                    f"(0 to {len(self.classes) - 1}); correct them, or the {CLASSES_NAME}"
                )
        else:
            self.classes.labels_of(labels)

    def _samples(self, split: str, progress: Callable[[int, int], None]) -> Iterator[tuple[str, bytes, int]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        total = self.rows(split)
        label_of: dict[Any, int] = {}
        columns = [f"{self.image}.bytes" if self.nested else self.image, self.label]
        columns += [] if self.key is None or self.key in columns else [self.key]
        row = 0
        for file in self.files[split]:
            try:
                for batch in pq.ParquetFile(file).iter_batches(batch_size=_AT_A_TIME, columns=columns):
                    images, labels = self._images(batch), batch.column(self.label).to_pylist()
                    keys = None if self.key is None else _stems(_texts(batch, self.key)).to_pylist()
                    for place, (data, label) in enumerate(zip(images, labels, strict=True)):
                        if not data:
                            raise DataError(
                                f"row {row} of {split} ({file}) has no image in it; download a copy with the images"
                            )
                        if label not in label_of:
                            label_of[label] = label if self.numbers else self.classes.labels_of([label])[label]
                        yield f"{row:08d}" if keys is None else keys[place], data, label_of[label]
                        row += 1
                        progress(row, total)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{file} is damaged ({first_line(error)}); download it again") from error

    def _images(self, batch: pa.RecordBatch) -> list[bytes | None]:
        import pyarrow.compute as pc

        column = batch.column(self.image)
        found: list[bytes | None] = (pc.struct_field(column, "bytes") if self.nested else column).to_pylist()
        return found


def is_parquet(text: str) -> bool:
    """Whether a file's name, a pattern, or a folder that holds neither tars nor images stands for parquet files."""
    if text.endswith(PARQUET_SUFFIX):
        return True
    places, found = [Path(native(text)).expanduser()], False
    if not places[0].is_dir():
        return False
    for depth in range(3):
        # Of class folders, of which there may be thousands, some say it.
        entries = [entry for place in places for entry in itertools.islice(os.scandir(place), _LOOKED_AT)]
        suffixes = {Path(entry.name).suffix.lower() for entry in entries}
        if suffixes & {".tar", *IMAGE_SUFFIXES}:
            return False
        found |= PARQUET_SUFFIX in suffixes
        places = [Path(entry.path) for entry in entries if depth < 2 and entry.is_dir()][:_LOOKED_AT]
    return found


def parquet_files(text: str) -> dict[str, list[Path]]:
    """The parquet files of each split that a file, a pattern or a folder at any depth names; those of none under "".

    A file's split is the word for one that its name begins with, else that of the nearest folder. Where no file has
    such a word, all are "train".

    Raises:
        DataError: the files of one split lie in several folders.
    """
    path = Path(native(text)).expanduser()
    if path.is_dir():
        files, top = [*path.rglob(f"*{PARQUET_SUFFIX}")], path
    elif path.is_file():
        files, top = ([path] if path.suffix == PARQUET_SUFFIX else []), path.parent
    else:
        fixed = Path(*[part for part in path.parts if not any(mark in part for mark in "*?[")][: len(path.parts) - 1])
        top = next(parent for parent in (path, *path.parents) if parent == fixed or parent in (Path(), Path("/")))
        files = [file for file in top.glob(str(path.relative_to(top))) if file.suffix == PARQUET_SUFFIX]
    found: dict[str, list[Path]] = {split: [] for split in ("", *SPLIT_WORDS)}
    for file in sorted(file for file in files if file.is_file() and not file.name.startswith(".")):
        words = [re.split(r"[-_.]", file.stem)[0], *(folder.name for folder in file.relative_to(top).parents)]
        called = next((split for word in (*words, top.name) if (split := split_called(word))), "")
        found[called].append(file)
    if not any(found[split] for split in SPLIT_WORDS):
        found["train"], found[""] = found[""], []
    for split, inside in found.items():
        folders = sorted({str(file.parent) for file in inside})
        if split and len(folders) > 1:
            raise DataError(
                f"{text} holds parquet files of {split} in {len(folders)} folders: {some(folders)}; name one of them"
            )
    return {split: inside for split, inside in found.items() if inside}


def open_parquet(text: str, *, image: str | None = None, label: str | None = None) -> ParquetData:
    """The images that parquet files hold; what `text` may be is said at `parquet_files`.

    The classes are those of a `classes.txt` beside the files, else those that the Hugging Face hub stored in them, else
    text labels, sorted, or numbers.

    Args:
        text: a file, a pattern or a folder.
        image: the column of the images, structs of bytes and path or bytes; None finds it.
        label: the column of the labels, numbers or text; None finds it.

    Raises:
        UsageError: pyarrow is not installed, there is no such column, or there are several.
        DataError: there is no such file, one is damaged or of other columns, or no label is known.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"{text} is parquet, which needs the package pyarrow: pip install 'cskd-pipeline[parquet]'"
        ) from error
    files = parquet_files(text)
    left_out = tuple(utf8(file) for file in files.pop("", []))
    if not files:
        raise DataError(f"{text} holds no parquet file; check the folder and the pattern")
    everything = [file for inside in files.values() for file in inside]
    schema = _opened(everything[0]).schema_arrow
    image = _image_column(schema, image, where=everything[0])
    label = _label_column(schema, label, where=everything[0])
    for file in everything[1:]:
        other = _opened(file).schema_arrow
        if any(name not in other.names or other.field(name).type != schema.field(name).type for name in (image, label)):
            raise DataError(f"{file} has other columns than {everything[0]}; pack the one set without the other")
    nested = bool(_struct(schema.field(image).type))
    classes, numbers = _classes(schema, label, files)
    found = ParquetData(files, image, nested, label, None, classes, numbers, left_out)
    keys = [name for name in _KEYS if name in schema.names and _is_text(schema.field(name).type)]
    keys += [f"{image}.path"] if nested and "path" in _struct(schema.field(image).type) else []
    key = next((key for key in keys if all(_are_keys(inside, key) for inside in files.values())), None)
    return dataclasses.replace(found, key=key)


def _image_column(schema: pa.Schema, given: str | None, *, where: Path) -> str:
    known = [field.name for field in schema if _is_bytes(field.type) or "bytes" in _struct(field.type)]
    return _column("image", known, given, _IMAGES, schema, where)


def _label_column(schema: pa.Schema, given: str | None, *, where: Path) -> str:
    import pyarrow as pa

    known = [field.name for field in schema if pa.types.is_integer(field.type) or _is_text(field.type)]
    known = [name for name in known if name not in _KEYS]
    named = [name for name in known if name in _hub_names(schema)]
    return _column("label", named if len(named) == 1 else known, given, _LABELS, schema, where)


def _column(
    what: str, known: list[str], given: str | None, words: tuple[str, ...], schema: pa.Schema, where: Path
) -> str:
    option = f"--{what}-column"
    if given is not None:
        if given not in known:
            raise UsageError(
                f"{option} is {given!r}, which is no column of {what}s in {where}{nearest(given, known)}; it has "
                f"{', '.join(f'{field.name} ({field.type})' for field in schema)}"
            )
        return given
    preferred = [word for word in words if word in known]
    if preferred or len(known) == 1:
        return (preferred or known)[0]
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    raise UsageError(f"which column of {where} holds the {what}s is not clear: it has {columns}; name it with {option}")


def _classes(schema: pa.Schema, label: str, files: Mapping[str, Sequence[Path]]) -> tuple[ClassList, bool]:
    """The classes, and whether labels are their numbers."""
    import pyarrow as pa

    numbers = bool(pa.types.is_integer(schema.field(label).type))
    beside = {
        folder: None for inside in files.values() for file in inside for folder in (file.parent, file.parent.parent)
    }
    for folder in beside:
        listed = folder / CLASSES_NAME
        if listed.is_file():
            return ClassList.parse(listed.read_bytes(), where=utf8(listed)), numbers
    names = _hub_names(schema).get(label)
    if names and numbers:
        return ClassList(tuple((" ".join(name.split()),) for name in names), "the names in the files"), numbers
    found: set[Any] = set()
    for inside in files.values():
        for file in inside:
            found.update(_read(file, [label]).column(0).unique().to_pylist())
    found -= {None, -1}
    if not found:
        raise DataError(f"no image in {next(iter(files.values()))[0].parent} has a label")
    if not numbers:
        return ClassList(tuple((text,) for text in sorted(found)), "the labels in the files"), numbers
    if max(found) >= max(1000, 10 * len(found)):
        raise DataError(
            f"column {label} holds {len(found)} different numbers up to {max(found)}, which are no labels from 0 on; "
            f"put a {CLASSES_NAME} beside the files, or name another --label-column"
        )
    return ClassList(tuple((str(number),) for number in range(max(found) + 1)), "the labels in the files"), numbers


def _hub_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of the classes that the Hugging Face hub stored, by column."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: [str(entry) for entry in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _are_keys(files: Sequence[Path], key: str) -> bool:
    """Whether a column names every row of a split, each in a way of its own and fit for a tar."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = pa.chunked_array([chunk for file in files for chunk in _key_texts(file, key).chunks], pa.string())
    if column.null_count or not len(column):
        return False
    stems = _stems(column)
    odd = pc.any(pc.match_substring_regex(stems, _ODD_KEY)).as_py()
    return not odd and pc.count_distinct(stems).as_py() == len(stems)


def _key_texts(file: Path, key: str) -> pa.ChunkedArray:
    import pyarrow as pa

    table = _read(file, [key])
    chunks = [_texts(batch, key) for batch in table.to_batches()]
    return pa.chunked_array(chunks, pa.string())


def _texts(batch: pa.RecordBatch, key: str) -> pa.Array:
    """The column of the keys, which may be a part of another."""
    import pyarrow as pa
    import pyarrow.compute as pc

    name, _, part = key.partition(".")
    column = batch.column(name) if name in batch.schema.names and part else batch.column(key)
    return (pc.struct_field(column, part) if part else column).cast(pa.string())


def _stems(texts: Any) -> Any:
    """File names without their endings."""
    import pyarrow.compute as pc

    return pc.replace_substring_regex(texts, r"(?i)\.(jpe?g|png|webp)$", "")


def _struct(kind: pa.DataType) -> dict[str, pa.DataType]:
    import pyarrow as pa

    return {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {}


def _is_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _opened(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file} is no parquet file, or damaged ({first_line(error)}); download it again (from git: git lfs pull)"
        ) from error


def _read(file: Path, columns: list[str]) -> pa.Table:
    """Some columns of a file, which are small."""
    import pyarrow as pa

    try:
        return _opened(file).read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} is damaged ({first_line(error)}); download it again") from error
