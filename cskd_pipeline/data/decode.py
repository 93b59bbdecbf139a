"""Encoded image to RGB pixels: always the image that was asked for, as it is stored, or an error.

EXIF orientation is never applied: a crop's region is in stored pixels, and labels outlive the reader that
wrote them.

Parts of a JPEG are decoded by simplejpeg where that gives the same pixels: it and Pillow both hold libjpeg-turbo, which
gives the same bits whichever of them asks. What simplejpeg is not sure of is left to Pillow: inks, subsampling that
versions of the library smooth differently, and every file with a flaw, so that Pillow alone decides what is refused and
what is forgiven.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cskd_pipeline.errors import DataError

# Told apart by content, not by name: ImageNet holds a PNG that is called .JPEG.
HEADER_BYTES = 16 << 10
"""This many bytes of an image usually suffice for `image_size`."""

_FORMATS = ("JPEG", "PNG", "WEBP")
_SIMPLE = {"Gray", "444", "422", "420"}
_DIRECT = ("RGB", "L", "1", "CMYK", "YCbCr", "LA", "RGBA", "RGBX")


def image_size(data: bytes, *, name: str) -> tuple[int, int]:
    """(height, width) in stored pixels, from the header alone.

    Raises:
        DataError: the header does not parse; the message starts with `name`.
    """
    with _named(name), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        return image.height, image.width


def decode_rgb(data: bytes, *, name: str) -> NDArray[np.uint8]:
    """The pixels, uint8 [h, w, 3] RGB, contiguous and writable.

    Grey is repeated, palettes are looked up, CMYK is converted by Pillow, 16-bit grey keeps its upper eight bits
    and an alpha channel is dropped (not blended), as torchvision and timm do.

    Raises:
        DataError: the data is truncated, damaged or of an unknown kind; the message starts with `name`.
    """
    with _named(name), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        image.load()
        return _rgb(image)


@contextlib.contextmanager
def bombs_are_errors() -> Iterator[None]:
    """Have Pillow refuse images of suspicious size, and silence its other warnings.

    For a main thread only, round work that may use threads: warning filters belong to the process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("P", "PA"):
        # By way of RGBA: Pillow warns about a transparent palette that goes to RGB directly.
        image = image.convert("RGBA")
    if image.mode not in _DIRECT:
        raise ValueError(f"pixel mode {image.mode!r} is not supported")
    return np.array(image.convert("RGB"))


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        # Pillow's readers raise whatever their parsing trips over: OSError, SyntaxError, struct.error, IndexError, ...
        reason = str(error).replace("\n", " ") or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f"no {', '.join(_FORMATS)} image"
        raise DataError(f"{name}: cannot be decoded ({reason}); replace or remove it, then index again") from error


class Box(NamedTuple):
    """A part of an image, in pixels; it lies inside."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        """As an index."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """As an index."""
        return slice(self.left, self.left + self.width)


def decode_parts(data: bytes, boxes: Sequence[Box], *, size: tuple[int, int]) -> list[NDArray[np.uint8]] | None:
    """uint8 [box.height, box.width, 3] RGB for each box; None where Pillow is to decode, or to say what is wrong.

    Args:
        data: an encoded image of any kind.
        boxes: the parts.
        size: (height, width) that the image is said to have.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, colours, subsampling = simplejpeg.decode_jpeg_header(data)
        if (height, width) != size or colours not in ("YCbCr", "Gray") or subsampling not in _SIMPLE:
            return None
        whole: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:  # strict as it is, it refuses what Pillow may forgive
        return None
    return [whole[box.rows, box.columns] for box in boxes]
