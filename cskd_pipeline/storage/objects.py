"""Files as the objects of a bucket: `s3://` (and compatible servers) and `gs://`, through obstore.

Credentials, region and endpoint come from the environment (AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT_URL,
GOOGLE_APPLICATION_CREDENTIALS, ...) or from the machine's own identity; nothing here takes or prints them.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from cskd_pipeline.errors import DataError, RetryError, UsageError
from cskd_pipeline.storage.storage import StoredFile

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs")

RETRIES, RETRY_S = 12, 180.0
"""Times and seconds for which obstore repeats what failed on the server's side, waiting longer each time."""

_CONNECT_S, _READ_S, _REQUEST_S = 10.0, 120.0, 900.0
_WRITES = 4
"""Attempts at a write: a request that timed out may or may not have been done, so obstore leaves it to the caller."""

Result = TypeVar("Result")


def open_bucket(url: str) -> ObjectStorage:
    """The storage at `url`; errors as `open_client`."""
    return ObjectStorage(url, open_client(url, allow_http=_plain_http()))


def open_client(url: str, *, allow_http: bool) -> ObjectStore:
    """What reads and writes objects below an address.

    Raises:
        UsageError: obstore is not installed, or cannot make sense of the address or the environment.
    """
    try:
        from obstore.store import from_url
    except ImportError as error:
        raise UsageError(
            f"{url} needs the package obstore: pip install 'cskd-pipeline[objects]'; or give a local path"
        ) from error
    try:
        client: ObjectStore = from_url(
            url,
            client_options={
                "connect_timeout": _seconds(_CONNECT_S),
                "read_timeout": _seconds(_READ_S),
                "timeout": _seconds(_REQUEST_S),
                "allow_http": allow_http,
            },
            retry_config={
                "max_retries": RETRIES,
                "retry_timeout": _seconds(RETRY_S),
                # Each pause is drawn from the first one to the last one times the base.
                "backoff": {"init_backoff": _seconds(0.2), "max_backoff": _seconds(20.0), "base": 4},
            },
        )
    except Exception as error:  # obstore raises many kinds for one thing
        raise UsageError(f"{url} cannot be opened ({_reason(error)}); check the address and the environment") from error
    return client


class ObjectStorage:
    """The objects below a prefix of a bucket."""

    def __init__(self, url: str, client: ObjectStore) -> None:
        """Use the objects that `client` reaches; `url` is their address in messages."""
        self._url, self._client, self._pid = url, client, os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        return open_bucket, (self._url,)

    @property
    def address(self) -> str:
        """The URL."""
        return self._url

    def free_bytes(self) -> int | None:
        """None: a bucket does not say."""
        return None

    def at(self, name: str) -> str:
        """The URL of an object."""
        return f"{self._url}/{name}" if name else self._url

    def read(self, name: str, *, limit: int) -> bytes:
        """See `Storage`."""
        import obstore

        with self._errors("read", name):
            found = obstore.get(self._client, name)
            size = int(found.meta["size"])
            if size > limit:
                raise DataError(f"{self.at(name)} has {size:,} bytes, at most {limit:,} are expected")
            return bytes(found.bytes())

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """See `Storage`."""
        import obstore

        if not ranges:
            return []
        starts, stops = [start for start, _ in ranges], [stop for _, stop in ranges]
        try:
            with self._errors("read", name):
                parts = [bytes(part) for part in obstore.get_ranges(self._client, name, starts=starts, ends=stops)]
        except BaseException as error:  # obstore panics where ranges that it fetches together end beyond the object
            if type(error).__name__ != "PanicException":
                raise
            raise DataError(f"{self.at(name)} ends before byte {max(stops):,}") from error
        if any(len(part) != stop - start for part, (start, stop) in zip(parts, ranges, strict=True)):
            raise DataError(f"{self.at(name)} ends before byte {max(stops):,}")
        return parts

    def size(self, name: str) -> int | None:
        """See `Storage`."""
        import obstore

        with self._errors("read", name), contextlib.suppress(FileNotFoundError):
            return int(obstore.head(self._client, name)["size"])
        return None

    def write(self, name: str, content: bytes, *, durable: bool = True) -> None:
        """See `Storage`; always durable: an object store answers once the object is safe."""
        import obstore

        self._written(name, lambda: obstore.put(self._client, name, content, use_multipart=False))

    def create(self, name: str, content: bytes, *, durable: bool = True) -> bool:
        """See `Storage`. Also True if the object exists with the same content: the first answer may have been lost."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        try:
            self._written(name, lambda: obstore.put(self._client, name, content, use_multipart=False, mode="create"))
        except AlreadyExistsError:
            with contextlib.suppress(FileNotFoundError, DataError):
                return self.read(name, limit=len(content)) == content
            return False
        return True

    def delete(self, name: str, *, durable: bool = False) -> None:
        """See `Storage`."""
        import obstore

        with self._errors("write", name), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._client, name)

    def files(self, folder: str = "", *, deep: bool = True) -> Iterator[StoredFile]:
        """See `Storage`."""
        import obstore

        with self._errors("read", folder):
            if deep:
                for part in obstore.list(self._client, folder or None):
                    yield from map(_stored, part)
            else:
                found = obstore.list_with_delimiter(self._client, folder or None)["objects"]
                yield from sorted(map(_stored, found))

    def folders(self, folder: str = "") -> list[str]:
        """See `Storage`."""
        import obstore

        with self._errors("read", folder):
            prefixes = obstore.list_with_delimiter(self._client, folder or None)["common_prefixes"]
        return sorted(str(prefix).rstrip("/").rpartition("/")[2] for prefix in prefixes)

    def sweep(self) -> None:
        """See `Storage`; nothing is left half-written, as an object appears whole or not at all."""

    def _written(self, name: str, put: Callable[[], Result]) -> Result:
        from obstore.exceptions import GenericError

        for attempt in range(1, _WRITES):
            try:
                with self._errors("write", name, passing=GenericError):
                    return put()
            except GenericError:
                time.sleep(2.0 ** (attempt - 1))
        with self._errors("write", name):
            return put()

    @contextlib.contextmanager
    def _errors(self, what: str, name: str, *, passing: type[Exception] | None = None) -> Iterator[None]:
        """Translate obstore's errors into this project's, except those in `passing`."""
        from obstore.exceptions import (
            AlreadyExistsError,
            BaseError,
            NotFoundError,
            PermissionDeniedError,
            UnauthenticatedError,
        )

        assert self._pid == os.getpid(), "a fork must open its own: obstore's threads are not inherited"
        try:
            yield
        except (FileNotFoundError, NotFoundError) as error:
            if what == "write" or "NoSuchBucket" in str(error):
                raise DataError(f"{self._url}: there is no such bucket; make it, or correct the address") from error
            raise FileNotFoundError(f"no object at {self.at(name)}") from error
        except AlreadyExistsError:
            raise
        except (BaseError, OSError) as error:
            if passing is not None and isinstance(error, passing):
                raise
            # Listing reports everything as a generic error.
            refused = (PermissionDeniedError, UnauthenticatedError, PermissionError)
            if isinstance(error, refused) or re.search(r"status code: 40[13]", str(error)):
                raise RetryError(
                    f"cannot {what} {self.at(name)}: access is denied; give credentials that may {what} it through the "
                    "environment (for s3:// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE's), then run "
                    "the same command again"
                ) from error
            if "NoSuchBucket" in str(error):
                raise DataError(f"{self._url}: there is no such bucket; make it, or correct the address") from error
            if re.search(r"status code: 416", str(error)):
                raise DataError(f"{self.at(name)} ends before the bytes that are expected") from error
            raise RetryError(
                f"cannot {what} {self.at(name)} ({_reason(error)}); nothing that was there is lost: run the same "
                "command again (training: with --resume)"
            ) from error


def _stored(found: ObjectMeta) -> StoredFile:
    version = found.get("e_tag") or found["last_modified"].isoformat()
    return StoredFile(str(found["path"]), int(found["size"]), version)


@functools.cache
def _seconds(count: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=count)


def _plain_http() -> bool:
    """Whether the environment allows http://, for a server on a private network."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or ""
    return endpoint.startswith("http://") or os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes")


def _reason(error: Exception) -> str:
    """The first line of obstore's message, which may run to pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(":, ")
