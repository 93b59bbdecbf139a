"""Encoded image to RGB pixels: always the image that was asked for, as it is stored, or an error.

EXIF orientation is never applied: a crop's region is in stored pixels, and labels outlive the reader that
wrote them.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cskd_pipeline.errors import DataError

# Told apart by content, not by name: ImageNet holds a PNG that is called .JPEG.
HEADER_BYTES = 16 << 10
"""From so many bytes of an image `image_size` mostly tells its size."""

_FORMATS = ("JPEG", "PNG", "WEBP")
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
    """Makes Pillow refuse an image of suspicious size, and keeps its other warnings quiet.

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
