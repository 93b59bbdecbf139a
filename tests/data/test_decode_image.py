"""Decoding gives the stored pixels of the image that was asked for, or an error that names it."""

import errno
import gc
import io
import os
import resource
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cskd_pipeline.data import build_index, open_split, resolve_data
from cskd_pipeline.data.decode import bombs_are_errors, decode_rgb, image_size
from cskd_pipeline.errors import DataError, RetryError

RAMP = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_grey_is_repeated():
    np.testing.assert_array_equal(decode_rgb(encoded(Image.fromarray(RAMP)), name="x"), np.stack([RAMP] * 3, axis=2))


def test_sixteen_bit_grey_keeps_the_upper_byte():
    deep = RAMP.astype(np.uint16) * 256 + 255
    np.testing.assert_array_equal(decode_rgb(encoded(Image.fromarray(deep)), name="x"), np.stack([RAMP] * 3, axis=2))


@pytest.mark.parametrize("transparent", [None, 7, bytes(range(240))])
def test_a_palette_is_looked_up_whatever_its_transparency(transparent):
    image = Image.fromarray(RAMP).convert("P")
    image.putpalette([255 - value // 3 for value in range(768)])
    options = {} if transparent is None else {"transparency": transparent}
    looked_up = np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3)[np.asarray(image)]
    np.testing.assert_array_equal(decode_rgb(encoded(image, **options), name="x"), looked_up)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped_not_blended(mode):
    image = Image.fromarray(np.stack([RAMP, RAMP + 5, RAMP + 9], axis=2)).convert(mode)
    image.putalpha(Image.fromarray(RAMP[::-1]))
    expected = np.asarray(image)[:, :, [0, 1, 2] if mode == "RGBA" else [0, 0, 0]]
    np.testing.assert_array_equal(decode_rgb(encoded(image), name="x"), expected)


def test_one_bit_becomes_black_and_white():
    image = Image.fromarray(RAMP > 100)
    np.testing.assert_array_equal(
        decode_rgb(encoded(image), name="x"), np.stack([(RAMP > 100) * np.uint8(255)] * 3, axis=2)
    )


def test_cmyk_is_converted(picture):
    data = picture(3, 10, 14, mode="CMYK")
    cmyk = np.asarray(Image.open(io.BytesIO(data))).astype(np.int64)
    expected = 255 - np.minimum(cmyk[:, :, :3] + cmyk[:, :, 3:], 255)
    difference = np.abs(decode_rgb(data, name="x") - expected)
    # Pillow multiplies the inks; adding them is the simple model. They agree where a pixel has little black.
    assert difference[cmyk[:, :, 3] < 3].max() <= 3


def test_exif_orientation_is_not_applied():
    image = Image.fromarray(np.stack([RAMP] * 3, axis=2))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image, "JPEG", exif=exif.tobytes(), quality=95)
    assert decode_rgb(data, name="x").shape == (12, 20, 3)
    assert image_size(data, name="x") == (12, 20)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_kind_is_told_by_the_content(kind, picture, write_tar, tmp_path):
    file = write_tar(tmp_path / "x.tar", {"a.jpg": picture(1, 9, 13, kind), "a.cls": b"0"})
    assert open_split(str(file), "train").decode(0).shape == (9, 13, 3)


def test_other_kinds_are_refused(picture):
    with pytest.raises(DataError, match="x: cannot be decoded"):
        decode_rgb(picture(1, kind="BMP"), name="x")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_image_is_an_error_never_a_grey_area(kind, picture):
    whole = picture(1, 40, 40, kind)
    for share in (0.0, 0.1, 0.5, 0.9):
        with pytest.raises(DataError, match="sample 'k'"):
            decode_rgb(whole[: int(len(whole) * share)], name="sample 'k'")


def test_pixels_are_writable_and_contiguous(picture):
    pixels = decode_rgb(picture(1), name="x")
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous
    assert pixels.dtype == np.uint8


def test_an_image_of_suspicious_size_is_an_error_when_indexed(monkeypatch, picture):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with bombs_are_errors(), pytest.raises(DataError, match="decompression bomb"):
        image_size(picture(1, 8, 8), name="x")


def test_pillows_other_warnings_do_not_refuse_an_image():
    with bombs_are_errors():
        warnings.warn("Corrupt EXIF data", UserWarning, stacklevel=1)


@pytest.mark.parametrize("check", [False, True])
def test_an_index_refuses_a_header_that_does_not_parse(check, as_folder):
    file = as_folder / "train" / "a" / "04.JPEG"
    file.write_bytes(b"no image at all")
    with pytest.raises(DataError, match=r"1 of 10 images are broken: sample 'a/04' of .*04\.JPEG: cannot be decoded"):
        build_index(resolve_data(str(as_folder)), "train", check=check)


def test_only_a_full_check_finds_a_truncated_image_before_it_is_used(as_folder):
    source = resolve_data(str(as_folder))
    file = as_folder / "train" / "b" / "05.JPEG"
    file.write_bytes(file.read_bytes()[:-60])
    index = build_index(source, "train")
    sample = [index.key(row) for row in range(len(index))].index("b/05")
    with pytest.raises(DataError, match=r"sample 'b/05'.*truncated"):
        index.decode(sample)
    with pytest.raises(DataError, match=r"1 of 10 images are broken: sample 'b/05'"):
        build_index(source, "train", check=True)


def test_many_broken_images_are_named_a_few_at_a_time(as_folder):
    for file in as_folder.rglob("*.JPEG"):
        file.write_bytes(b"")
    with pytest.raises(
        DataError, match=r"10 \(at least\) of 10 images are broken, .* all: sample 'a/00'.*'a/08'"
    ) as caught:
        build_index(resolve_data(str(as_folder)), "train")
    assert str(caught.value).count("cannot be decoded") == 5


def test_a_header_behind_a_large_profile_is_read():
    image = Image.fromarray(RAMP)
    data = encoded(image, "JPEG", icc_profile=np.random.default_rng(0).bytes(40_000))
    assert image_size(data, name="x") == (12, 20)


def test_an_image_whose_header_lies_far_in_is_measured(as_folder):
    file = as_folder / "train" / "a" / "04.JPEG"
    image = Image.open(file)
    size = (image.height, image.width)
    file.write_bytes(encoded(image, "JPEG", icc_profile=np.random.default_rng(0).bytes(40_000)))
    index = open_split(str(as_folder), "train")
    sample = [index.key(row) for row in range(len(index))].index("a/04")
    assert (index.heights[sample], index.widths[sample]) == size


def test_a_check_lists_every_broken_image(as_folder):
    for file in as_folder.rglob("*.JPEG"):
        file.write_bytes(file.read_bytes()[:-40] if file.stem != "00" else b"<html>")
    lines = []
    with pytest.raises(DataError, match="10 of 10 images are broken, and were listed"):
        build_index(resolve_data(str(as_folder)), "train", check=True, report_broken=lines.append)
    assert [line[:13] for line in lines] == [
        f"sample '{'ab'[n // 5]}/{n % 5 * 2 + n // 5:02d}'"[:13] for n in range(10)
    ]


@pytest.fixture
def few_files():
    """few_files(count): no more may be open from now on, until the test ends."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda count: resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_low_limit_on_open_files_is_raised_or_kept_to(as_folder, few_files, picture, monkeypatch):
    for number in range(120):
        (as_folder / "train" / "a" / f"more{number}.png").write_bytes(picture(number, kind="PNG"))
    gc.collect()  # what earlier tests left open
    few = 40 + 2 * len(list(Path("/proc/self/fd").iterdir()))
    few_files(few)
    assert len(open_split(str(as_folder), "train")) == 130
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > few
    few_files(few)
    monkeypatch.setattr(resource, "setrlimit", lambda *limits: None)
    assert len(build_index(resolve_data(str(as_folder)), "train")) == 130


def test_too_many_open_files_are_no_broken_images(as_folder, monkeypatch):
    index = open_split(str(as_folder), "train")

    def refuse(*how):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(RetryError, match=r"Too many open files: at most \d+ are allowed, raise that with ulimit -n"):
        index.read(0)
