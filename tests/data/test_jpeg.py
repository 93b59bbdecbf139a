"""A part of an image has the pixels that it has in the whole, whoever decodes it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cskd_pipeline.data import build_index, resolve_data
from cskd_pipeline.data.decode import Box, decode_parts, decode_rgb
from cskd_pipeline.errors import DataError


def encoded(height: int, width: int, mode: str = "RGB", **options: Any) -> bytes:
    coarse = np.random.default_rng(height * width).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def boxes(height: int, width: int) -> list[Box]:
    generator = np.random.default_rng(height + width)
    found = [Box(0, 0, height, width), Box(height - 1, width - 1, 1, 1)]
    for _ in range(12):
        top, left = int(generator.integers(height)), int(generator.integers(width))
        bottom, right = int(generator.integers(top, height)) + 1, int(generator.integers(left, width)) + 1
        found.append(Box(top, left, bottom - top, right - left))
    return found


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", None])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 50), (64, 48), (91, 77)])
def test_a_part_equals_that_part_of_the_whole(
    height: int, width: int, subsampling: str | None, progressive: bool
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # never applied
    options = {"progressive": progressive, "exif": exif.tobytes(), "quality": 80}
    options |= {"subsampling": subsampling} if subsampling else {}
    data = encoded(height, width, "RGB" if subsampling else "L", restart_marker_blocks=3, **options)
    whole = decode_rgb(data, name="x")
    chosen = list(boxes(height, width))
    parts = decode_parts(data, chosen, size=(height, width))
    assert parts is not None
    for box, part in zip(chosen, parts, strict=True):
        assert part.dtype == np.uint8
        assert np.array_equal(part, whole[box.top : box.top + box.height, box.left : box.left + box.width]), box


def test_what_pillow_must_judge_is_left_to_it() -> None:
    whole = encoded(40, 40)
    stream = io.BytesIO()
    Image.new("RGB", (40, 40)).save(stream, "PNG")
    box = Box(0, 0, 10, 10)
    assert decode_parts(whole, [box], size=(40, 40)) is not None
    for data in (
        whole[:-1],
        whole[: len(whole) // 2],
        stream.getvalue(),
        b"",
        encoded(40, 40, "CMYK"),
    ):
        assert decode_parts(data, [box], size=(40, 40)) is None
    assert decode_parts(whole, [box], size=(40, 41)) is None, "another image than the one that was indexed"


def test_a_flaw_is_left_to_pillow_to_judge() -> None:
    generator = np.random.default_rng(0)
    refused = 0
    for trial in range(300):
        data = bytearray(encoded(48, 40, subsampling="4:2:0", progressive=bool(trial % 2)))
        for _ in range(int(generator.integers(1, 10))):
            data[int(generator.integers(3, len(data) - 2))] = int(generator.integers(256))
        parts = decode_parts(bytes(data), [Box(10, 10, 20, 20)], size=(48, 40))
        if parts is None:
            refused += 1
        else:
            assert np.array_equal(parts[0], decode_rgb(bytes(data), name="x")[10:30, 10:30])
    assert 0 < refused < 300


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_an_index_gives_parts_or_names_the_sample_whoever_decodes(mode: str, as_folder: Any) -> None:
    if mode == "CMYK":
        for file in as_folder.rglob("*.JPEG"):
            file.write_bytes(encoded(7, 9, mode))
    index = build_index(resolve_data(str(as_folder)), "train")
    for sample in range(len(index)):
        one, other = index.decode_parts(sample, [Box(2, 3, 3, 5), Box(0, 0, 1, 2)])
        whole = index.decode(sample)
        assert np.array_equal(one, whole[2:5, 3:8]) and np.array_equal(other, whole[:1, :2])
    file = Path(index.file(0))
    file.write_bytes(file.read_bytes().replace(b"\xff\xda", b"\0\0"))
    with pytest.raises(DataError, match=index.key(0)):
        index.decode_parts(0, [Box(0, 0, 2, 2)])
