"""What a store and a run of release 0.1.0 were made of, drawn from integers so that it is the same everywhere.

`made_by_0_1_0.tar.xz` holds them: `labels.zarr` (seeds 0 and 1, hard and soft targets of the toy data) and `run` (two
epochs of CSKD on them), written by the commands

    cskd-pipeline precompute --data toy --teacher test_resnet --teacher-arg output_stride=8 --chunk 16 \\
        --teacher-weights teacher.safetensors --size 32 --recipe-arg group=16 --block 32 --seeds 0:2 --out labels.zarr
    cskd-pipeline train --data toy --labels labels.zarr --student deit_ti --student-arg img_size=32 \\
        --student-arg patch_size=8 --student-arg embed_dim=24 --student-arg depth=2 --student-arg num_heads=2 \\
        --epochs 2 --warmup-epochs 0 --batch-size 16 --out run
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import save_file


def write_teacher(path: Path) -> Path:
    """Weights of timm's test_resnet for three classes whose winners differ from place to place."""
    state = timm.create_model("test_resnet", num_classes=3).state_dict()
    drawn = {}
    for number, (name, value) in enumerate(sorted(state.items())):
        if not value.is_floating_point():
            drawn[name] = torch.zeros_like(value)
            continue
        raw = np.random.Philox(key=number).random_raw(value.numel())
        uniform = ((raw >> np.uint64(48)).astype(np.int64) - 32768).astype(np.float32) / 32768  # exact, in [-1, 1)
        scale = 2.0 ** -round(np.log2(value[0].numel()) / 2) * 2 if value.ndim > 1 else 0.25
        offset = 1.0 if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")) else 0.0
        drawn[name] = torch.from_numpy(uniform * np.float32(scale) + np.float32(offset)).reshape(value.shape)
    save_file(drawn, path)
    return path
