"""From patch tokens to logits on the teacher's grid."""

from __future__ import annotations

from torch import Tensor, nn

from cskd_pipeline.errors import MismatchError


def require_divisible(patches: tuple[int, int], grid: tuple[int, int]) -> None:
    """Raise MismatchError, with both sizes, unless a grid of patch tokens pools to `grid` by whole factors."""
    if patches[0] % grid[0] or patches[1] % grid[1]:
        raise MismatchError(
            f"the student's {patches[0]} x {patches[1]} patch tokens do not pool to the teacher's "
            f"{grid[0]} x {grid[1]} grid by a whole factor; choose another patch size or image size"
        )


def dense_logits(tokens_BND: Tensor, head: nn.Module, *, patches: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """`head` at every position of `grid`, over the mean of the patch tokens that fall into it: [B, C, H, W].

    A linear head commutes with the mean, so pooling first gives the same logits for a fraction of the work.

    Args:
        tokens_BND: normed patch tokens in row order, N = patches[0] * patches[1].
        head: a linear map over the last axis, D to C.
        patches: height and width of the token grid, whole multiples of `grid`.
        grid: (H, W).
    """
    batch, _, width = tokens_BND.shape
    (rows, columns), (height, across) = patches, grid
    # A reshape and a mean, not adaptive_avg_pool2d: its gradient is deterministic on every device.
    tiles = tokens_BND.reshape(batch, height, rows // height, across, columns // across, width)
    logits_BHWC = head(tiles.mean((2, 4)))
    dense_BCHW: Tensor = logits_BHWC.permute(0, 3, 1, 2)
    return dense_BCHW
