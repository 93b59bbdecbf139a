"""A data set on the Hugging Face hub, `hf://USER/NAME`, `hf://USER/NAME@REVISION`: read at one commit, file by file.

Files are downloaded when they are first read, into the hub's cache, where they are found again without the network. The
endpoint, the token and the cache are those of huggingface_hub (HF_ENDPOINT, HF_TOKEN, HF_HOME).
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cskd_pipeline.errors import DataError, RetryError, UsageError, first_line
from cskd_pipeline.storage.folder import FolderStorage
from cskd_pipeline.storage.listing import Listing
from cskd_pipeline.storage.read_only import ReadOnly

SCHEME = "hf"
_ADDRESS = re.compile(r"hf://(?:datasets/)?([^/@]+/[^/@]+)(?:@([^/]+))?/*(.*?)/*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubStorage(ReadOnly):
    """The files of a data set, or of a folder in it, at the commit that its revision had when first looked at."""

    def __init__(self, url: str) -> None:
        """Of `hf://USER/NAME[@REVISION][/FOLDER]`; nothing is asked of the hub yet.

        Raises:
            UsageError: the address is malformed.
        """
        match = _ADDRESS.fullmatch(url)
        if match is None:
            raise UsageError(f"{url!r} is no address on the hub; give hf://USER/NAME or hf://USER/NAME@REVISION")
        self._url, self._revision = url, match[2]
        self.repository, self._folder = match[1], match[3]

    def __reduce__(self) -> tuple[Any, ...]:
        return HubStorage, (self.address,)

    @functools.cached_property
    def commit(self) -> str:
        """The commit, 40 hex digits."""
        if self._revision is not None and _COMMIT.fullmatch(self._revision):
            return self._revision
        from huggingface_hub import HfApi, constants

        known = self._cache / "refs" / (self._revision or "main")
        try:
            with self._errors():
                found = HfApi(constants.ENDPOINT).dataset_info(self.repository, revision=self._revision, timeout=60)
        except RetryError:
            with contextlib.suppress(OSError):
                return known.read_text()
            raise
        assert found.sha is not None
        with contextlib.suppress(OSError):  # a cache that cannot be written is of no use later, and no hindrance now
            known.parent.mkdir(parents=True, exist_ok=True)
            known.write_text(found.sha)
        return found.sha

    @property
    def address(self) -> str:
        """The URL, with the commit."""
        return f"hf://{self.repository}@{self.commit}{f'/{self._folder}' if self._folder else ''}"

    def at(self, name: str) -> str:
        """The URL of a file."""
        return f"{self.address}/{name}" if name else self.address

    def read(self, name: str, *, limit: int) -> bytes:
        """See `Storage`."""
        self._require(name)
        return self._local(name).read("", limit=limit)

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """See `Storage`; the whole file is downloaded."""
        self._require(name)
        return self._local(name).read_ranges("", ranges)

    def stage(self, folder: Path, *, private: bool = False) -> None:
        """Make the data set, `private` or for all, if there is none; fetch the small files of its store to `folder`.

        Raises:
            UsageError: the address names a revision or a folder.
            DataError: the name is taken by something else, or the token may not write.
            RetryError: the hub is out of reach.
        """
        if self._revision is not None or self._folder:
            raise UsageError(f"{self._url} names a revision or a folder; labels are published as hf://USER/NAME")
        from huggingface_hub import HfApi, constants, snapshot_download

        with self._errors(writing=True):
            HfApi(constants.ENDPOINT).create_repo(self.repository, repo_type="dataset", private=private, exist_ok=True)
            snapshot_download(
                self.repository,
                repo_type="dataset",
                local_dir=folder,
                allow_patterns=["*.json", "README.md"],
                endpoint=constants.ENDPOINT,
                tqdm_class=_silent_bars(),
            )

    def upload(self, folder: Path, *, message: str) -> None:
        """Send the files of a folder that the data set lacks, in one commit; errors as `stage`."""
        from huggingface_hub import HfApi, constants

        with self._errors(writing=True):
            HfApi(constants.ENDPOINT).upload_folder(
                repo_id=self.repository, folder_path=folder, repo_type="dataset", commit_message=message
            )

    def _require(self, name: str) -> None:
        if self._listing.size(name) is None:
            raise FileNotFoundError(f"no file at {self.at(name)}")

    def _local(self, name: str) -> FolderStorage:
        """A file in the hub's cache, downloaded if it is not there."""
        from huggingface_hub import constants, hf_hub_download

        with self._errors():
            path = hf_hub_download(
                self.repository,
                f"{self._folder}/{name}" if self._folder else name,
                repo_type="dataset",
                revision=self.commit,
                cache_dir=constants.HF_HUB_CACHE,
                endpoint=constants.ENDPOINT,
                tqdm_class=_silent_bars(),
            )
        return FolderStorage(Path(path).resolve())

    @functools.cached_property
    def _listing(self) -> Listing:
        """What the hub lists, or if it is out of reach what was downloaded of that commit before."""
        from huggingface_hub import HfApi, constants
        from huggingface_hub.hf_api import RepoFile

        prefix = f"{self._folder}/" if self._folder else ""
        try:
            with self._errors():
                tree = HfApi(constants.ENDPOINT).list_repo_tree(
                    self.repository, recursive=True, revision=self.commit, repo_type="dataset"
                )
                sizes = {file.path: file.size for file in tree if isinstance(file, RepoFile)}
        except RetryError:
            known = self._cache / "snapshots" / self.commit
            if not known.is_dir():
                raise
            sizes = {
                path.relative_to(known).as_posix(): path.stat().st_size for path in known.rglob("*") if path.is_file()
            }
        return Listing(
            {name.removeprefix(prefix): size for name, size in sizes.items() if name.startswith(prefix)},
            version=self.commit,
        )

    @property
    def _cache(self) -> Path:
        """The hub client's folder of this data set: snapshots/COMMIT/FILE, and refs/REVISION, which names a commit."""
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.repository, repo_type="dataset")

    @contextlib.contextmanager
    def _errors(self, *, writing: bool = False) -> Iterator[None]:
        """Translate the many errors of the hub's client."""
        from huggingface_hub import constants, errors

        try:
            yield
        except errors.LocalEntryNotFoundError as error:
            raise self._out_of_reach(error) from error
        except errors.RevisionNotFoundError as error:
            raise DataError(f"hf://{self.repository} has no revision {self._revision!r}; give another") from error
        except errors.RepositoryNotFoundError as error:
            raise DataError(
                f"{self._url}: {constants.ENDPOINT} has no such data set, or shows it to nobody without leave; correct "
                "the name, or give a token that may read it in $HF_TOKEN"
            ) from error
        except errors.HFValidationError as error:
            raise UsageError(f"{self._url!r} is no address on the hub ({first_line(error)})") from error
        except errors.EntryNotFoundError as error:
            raise FileNotFoundError(str(error)) from error
        except errors.HfHubHTTPError as error:
            if writing and error.response.status_code in (401, 403):
                raise DataError(
                    f"{self._url} may not be written ({first_line(error)}); give a token that may in $HF_TOKEN, or log "
                    "in with `hf auth login`"
                ) from error
            raise self._out_of_reach(error) from error
        except Exception as error:  # of the network: those of whichever client the hub's uses
            if isinstance(error, DataError | RetryError | UsageError):
                raise
            raise self._out_of_reach(error) from error

    def _out_of_reach(self, error: Exception) -> RetryError:
        return RetryError(
            f"{self._url} is out of reach ({first_line(error)}); check the network, then run the same command again"
        )


def _silent_bars() -> Any:
    """The hub's client shows a bar for every file of a store."""
    from tqdm import tqdm

    class Silent(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **{**settings, "disable": True})

    return Silent
