"""Notice that replayed pixels are no longer those the teacher saw.

A codec or library upgrade can change pixels by a grey level here and there: nothing fails, but the student trains on
labels of other crops. The store keeps a checksum of every crop, and replay compares some of them as it goes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.crops.batch import CropBatch
from cskd_pipeline.errors import DataError
from cskd_pipeline.record import require_range


class Canary:
    """Compares crops with the checksums of the store: all of an epoch's first batch, then a share of every batch."""

    def __init__(self, share: float = 0.01) -> None:
        """Check `share` (0 to 1) of the crops after an epoch's first batch.

        Raises:
            UsageError: the share is not between 0 and 1.
        """
        require_range("--canary", share, low=0, high=1)
        self._share = share
        self._seen = 0
        self.checked = 0

    def check(self, batch: CropBatch, stored_crc_B: NDArray[np.uint32], *, first: bool) -> None:
        """Raise DataError, naming the crop, unless the chosen crops of the batch have the stored checksums."""
        count = len(batch)
        # Every (1/share)-th crop, wherever batches begin: which rows carry over from batch to batch.
        rows = np.arange(count)
        if not first:
            due = np.floor((self._seen + rows + 1) * self._share) > np.floor((self._seen + rows) * self._share)
            rows = rows[due]
            self._seen += count
        self.checked += len(rows)
        found = batch.checksums(rows)
        wrong = np.flatnonzero(found != stored_crc_B[rows])
        if len(wrong):
            row = int(rows[wrong[0]])
            draw = batch.draws_B[row]
            raise DataError(
                f"crop (seed {draw['seed']}, sample {draw['sample']}) has checksum {found[wrong[0]]:08x}, the store "
                f"has {stored_crc_B[row]:08x} ({len(wrong)} of {len(rows)} checked crops differ): images or image "
                "libraries have changed since the labels were made; compare versions with `cskd-pipeline inspect`"
            )
