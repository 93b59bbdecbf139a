"""Write tests/crops/golden_crops.json. Version 1 is frozen: run it only to add cases, never to make a test pass.

python tests/crops/make_golden_crops.py
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import torch
from crop_cases import draw_same_size, synthetic_image

from cskd_pipeline.crops.checksum import crop_crc
from cskd_pipeline.crops.evaluation import evaluation_crop
from cskd_pipeline.crops.finish import finish
from cskd_pipeline.crops.labels import partner_rows
from cskd_pipeline.crops.recipe import RECIPES
from cskd_pipeline.crops.render import render

PATH = Path(__file__).with_name("golden_crops.json")
CASES = {
    "deit-224": (RECIPES["deit"], 375, 500),
    "deit-64": (dataclasses.replace(RECIPES["deit"], size=64), 64, 64),
    "deit-96-key7": (dataclasses.replace(RECIPES["deit"], size=96, key=7, rand_augment="rand-m6-n3-inc1"), 40, 300),
    "plain-224": (RECIPES["plain"], 640, 427),
}
GROUP = 16


def compute() -> dict[str, Any]:
    """Everything that the golden file pins, computed anew."""
    out: dict[str, Any] = {}
    for name, (base, height, width) in CASES.items():
        recipe = dataclasses.replace(base, group=GROUP)
        images = [synthetic_image(height, width, which=i) for i in range(GROUP)]
        draws = draw_same_size(recipe, 17, range(GROUP), height=height, width=width, total=1000)
        crops = np.stack([render(image, draw, recipe) for image, draw in zip(images, draws, strict=True)])
        rows = partner_rows(draws)
        pixels = finish(torch.tensor(crops), draws, rows, recipe, mean=(0.5, 0.45, 0.4), std=(0.25, 0.3, 0.2))
        many = draw_same_size(recipe, 3, np.arange(20000) * 49 + 5, height=height, width=width, total=1 << 40)
        out[name] = {
            "draws": {field: draws[field].tolist() for field in draws.dtype.names or ()},
            "crc_of_20000_draws": google_crc32c.value(many.tobytes()),
            "crop_crc": [crop_crc(crop) for crop in crops],
            "finished_crc": google_crc32c.value(pixels.numpy().tobytes()),
            "evaluation_crc": crop_crc(evaluation_crop(images[0], size=recipe.size, crop_pct=0.875)),
        }
    return out


if __name__ == "__main__":
    torch.set_num_threads(1)
    PATH.write_text(json.dumps(compute(), separators=(",", ":")).replace('],"', '],\n"') + "\n")
