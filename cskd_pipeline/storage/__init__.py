"""Named files in a folder or in an object store, written whole or not at all.

This package is the project's only door to obstore.
"""

from cskd_pipeline.storage.address import is_address, open_storage
from cskd_pipeline.storage.folder import FolderStorage
from cskd_pipeline.storage.hub import HubStorage
from cskd_pipeline.storage.read_only import ReadOnly
from cskd_pipeline.storage.storage import Storage, StoredFile
from cskd_pipeline.storage.stream import open_stored
from cskd_pipeline.storage.web import FILE_LIST, write_file_list

__all__ = [
    "FILE_LIST",
    "FolderStorage",
    "HubStorage",
    "ReadOnly",
    "Storage",
    "StoredFile",
    "is_address",
    "open_storage",
    "open_stored",
    "write_file_list",
]
