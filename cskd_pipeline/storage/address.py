"""From what the user typed to a storage."""

from __future__ import annotations

import re
from pathlib import Path

from cskd_pipeline.errors import UsageError
from cskd_pipeline.storage import hub, web
from cskd_pipeline.storage.folder import FolderStorage
from cskd_pipeline.storage.names import native
from cskd_pipeline.storage.objects import SCHEMES, open_bucket
from cskd_pipeline.storage.storage import Storage

_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):/")


def is_address(text: str) -> bool:
    """Whether `text` is a URL rather than a path."""
    return _URL.match(text) is not None


def open_storage(location: Path | str, *, published: bool = True) -> Storage:
    """The storage at a path, or at a URL: s3://bucket/path, gs://bucket/path. Nothing is looked at or made yet.

    Args:
        location: the path or URL.
        published: take what can only be read, too: hf://USER/NAME and https://host/path.

    Raises:
        UsageError: the URL is malformed, or of a kind that is not read.
    """
    text = str(location)
    match = _URL.match(text)
    if match is None:
        if not text:
            raise UsageError("a path is empty; give a folder, or a URL such as s3://bucket/path")
        return FolderStorage(Path(native(text)))
    scheme, _, rest = text.partition("://")
    if rest.strip("/"):
        if published and scheme == hub.SCHEME:
            return hub.HubStorage(text)
        if published and scheme in web.SCHEMES:
            return web.WebStorage(text.rstrip("/"))
        if scheme in SCHEMES:
            return open_bucket(text.rstrip("/"))
    kinds = ", ".join(f"{scheme}://bucket/path" for scheme in SCHEMES)
    others = ", hf://USER/NAME, https://host/path" if published else ""
    raise UsageError(f"{text!r} is no address of an object store; give {kinds}{others} or a path")
