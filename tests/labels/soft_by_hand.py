"""One soft row read as docs/format.md says, number by number: the obvious, slow second implementation."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from cskd_pipeline.labels import SoftEncoding

Distribution = npt.NDArray[np.float64]


def read_row(row: npt.NDArray[np.uint8], encoding: SoftEncoding) -> tuple[list[Distribution], list[list[int]]]:
    """Unnormalised logarithms over all classes of the global output and then of each position, and the kept classes."""
    classes, positions = encoding.classes, encoding.positions
    slots = min(encoding.palette, classes)
    k, global_k = min(encoding.k, slots), min(encoding.global_k, classes)
    step, levels = 16 / 2**encoding.bits, 2**encoding.bits
    numbers = iter(row.tolist())

    def take(count: int) -> list[int]:
        return [next(numbers) for _ in range(count)]

    shared, others = take(2)
    code = [low + 256 * high for low, high in zip(take(slots), take(slots), strict=True)]
    palette = code[:shared]
    last = -1
    for gap in code[shared : shared + others]:
        last += gap + 1
        palette.append(last)
    global_tail = (take(1)[0] - levels) * step
    global_depth = np.cumsum([0, *take(global_k - 1)])
    tail = [(number - levels) * step for number in take(positions)]
    slot = [take(positions) for _ in range(k)]
    descent = [[0] * positions, *(take(positions) for _ in range(k - 1))]
    assert not list(numbers)

    global_kept = {palette[i]: -step * float(global_depth[i]) for i in range(shared)}
    g = spread(global_kept, global_tail, np.zeros(classes))
    distributions, kept_classes = [g], [list(global_kept)]
    for p in range(positions):
        kept, depth = {}, 0
        for rank in range(k):
            if slot[rank][p] != 255:
                depth += descent[rank][p]
                kept[palette[slot[rank][p]]] = -step * depth
        distributions.append(spread(kept, tail[p], 0.55 * g))
        kept_classes.append(list(kept))
    return distributions, kept_classes


def spread(kept: dict[int, float], tail: float, share: Distribution) -> Distribution:
    """The kept logarithms, and the tail over all other classes in proportion to exp(share), at most the least kept."""
    others = [c for c in range(len(share)) if c not in kept]
    if others:
        total = math.log(math.fsum(math.exp(share[c]) for c in others))
    logs = np.empty(len(share))
    for c in others:
        logs[c] = min(tail + share[c] - total, min(kept.values(), default=math.inf))
    for c, value in kept.items():
        logs[c] = value
    return logs
