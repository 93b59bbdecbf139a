"""Finishing on a CPU, compiled.

The same fp32 operations as in `finish`, each rounded by itself, but crop by crop, so that a crop stays in the
processor's cache and memory is written once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cskd_pipeline.crops.mixing import Mix
from cskd_pipeline.runtime.compiled import jit

DOMAIN_NOISE = 6
_MIXUP, _CUTMIX = int(Mix.MIXUP), int(Mix.CUTMIX)


@jit
def finish(
    crops_B3SS: Any,
    partner_B: Any,
    mix_B: Any,
    lam_B: Any,
    cut_B4: Any,
    erase_B4: Any,
    noise_N: Any,
    noise_at_B: Any,
    offset_3: Any,
    scale_3: Any,
    finished_B3SS: Any,
) -> None:
    """Fill `finished_B3SS`, fp32.

    Args:
        crops_B3SS: uint8.
        partner_B: int64 rows.
        mix_B: uint8, kinds of mixing.
        lam_B: fp32, shares of the own pixels.
        cut_B4: int64, top, left, bottom, right of CutMix's box.
        erase_B4: int64, top, left, height, width of the erased box; there is none if a side is 0.
        noise_N: fp32, the values of all erased boxes, one box after another.
        noise_at_B: int64, index of each crop's first value.
        offset_3: fp32, subtracted from 0..255.
        scale_3: fp32, by which the difference is multiplied.
        finished_B3SS: the result.
    """
    size = crops_B3SS.shape[2]
    own_SS, partner_SS = np.empty((size, size), np.float32), np.empty((size, size), np.float32)
    for b in range(len(crops_B3SS)):
        p = partner_B[b]
        for c in range(3):
            _erased(crops_B3SS[b, c], erase_B4[b], noise_N, noise_at_B[b], c, own_SS)
            if mix_B[b] == _MIXUP or mix_B[b] == _CUTMIX:
                _erased(crops_B3SS[p, c], erase_B4[p], noise_N, noise_at_B[p], c, partner_SS)
            _mixed(own_SS, partner_SS, mix_B[b], lam_B[b], cut_B4[b], offset_3[c], scale_3[c], finished_B3SS[b, c])


@jit
def fill_noise(names_B: Any, begin_B: Any, values_B: Any, table_T: Any, mean_3: Any, std_3: Any, noise_N: Any) -> None:
    """Fill `noise_N`, fp32, with mean + std * z, where Philox's half-words choose z from the table.

    Args:
        names_B: uint64, of each crop's noise.
        begin_B, values_B: int64, index of each crop's first value, and number of values, a third for each channel.
        table_T: fp32, quantiles of N(0, 1); their number is a power of two.
        mean_3, std_3: fp32, in 0..255.
        noise_N: the result.
    """
    shift = np.uint32(16)
    size = len(table_T)
    while size > 1:
        size, shift = size >> 1, shift - np.uint32(1)
    words_4 = np.empty(4, np.uint32)
    for b in range(len(names_B)):
        part = values_B[b] // 3
        for i in range(values_B[b]):
            if i % 8 == 0:
                _philox(names_B[b], np.uint32(i // 8), words_4)
            word = words_4[(i % 8) // 2]
            half = (word >> np.uint32(16)) if i % 2 else (word & np.uint32(0xFFFF))
            c = i // part
            noise_N[begin_B[b] + i] = table_T[half >> shift] * std_3[c] + mean_3[c]


@jit
def _philox(name: Any, block: Any, words_4: Any) -> None:
    """`philox4x32` with key (0, 0) and counter (name, low and high; domain of noise; block)."""
    low32, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    word0, word1 = name & low32, name >> half
    word2, word3 = np.uint64(DOMAIN_NOISE << 16), np.uint64(block)
    key0, key1 = np.uint64(0), np.uint64(0)
    for _ in range(10):
        product0, product1 = word0 * np.uint64(0xD2511F53), word2 * np.uint64(0xCD9E8D57)
        word0, word1 = (product1 >> half) ^ word1 ^ key0, product1 & low32
        word2, word3 = (product0 >> half) ^ word3 ^ key1, product0 & low32
        key0, key1 = (key0 + np.uint64(0x9E3779B9)) & low32, (key1 + np.uint64(0xBB67AE85)) & low32
    words_4[0], words_4[1], words_4[2], words_4[3] = word0, word1, word2, word3


@jit
def _erased(crop_SS: Any, box_4: Any, noise_N: Any, begin: int, channel: int, pixels_SS: Any) -> None:
    source, target = crop_SS.reshape(-1), pixels_SS.reshape(-1)
    for i in range(len(source)):
        target[i] = np.float32(source[i])
    top, left, height, width = box_4[0], box_4[1], box_4[2], box_4[3]
    at = begin + channel * height * width
    for y in range(height):
        for x in range(width):
            pixels_SS[top + y, left + x] = noise_N[at + y * width + x]


@jit
def _mixed(
    own_SS: Any, partner_SS: Any, mix: int, lam: Any, cut_4: Any, offset: Any, scale: Any, finished_SS: Any
) -> None:
    own, partner, finished = own_SS.reshape(-1), partner_SS.reshape(-1), finished_SS.reshape(-1)
    if mix == _MIXUP:
        rest = np.float32(1) - lam
        for i in range(len(own)):
            finished[i] = (own[i] * lam + partner[i] * rest - offset) * scale
        return
    for i in range(len(own)):
        finished[i] = (own[i] - offset) * scale
    if mix == _CUTMIX:
        for y in range(cut_4[0], cut_4[2]):
            for x in range(cut_4[1], cut_4[3]):
                finished_SS[y, x] = (partner_SS[y, x] - offset) * scale
