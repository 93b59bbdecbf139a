"""What the fault runs work on: a part of the set that is drawn offline, a small teacher, and the store of a run that
nobody disturbed."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import torch

from cskd_pipeline.crops import op_kernels
from cskd_pipeline.crops.recipe import RECIPES, CropRecipe
from cskd_pipeline.data import open_split
from cskd_pipeline.data.shapes import write_shapes
from cskd_pipeline.labelling.job import PrecomputeJob, precompute
from cskd_pipeline.labels import HardEncoding, SoftEncoding
from cskd_pipeline.models.teacher.load import load_teacher
from cskd_pipeline.store import StoreWriter

IMAGES, BLOCK, GROUP, SIZE, CLASSES = 1000, 128, 64, 32, 16
SEEDS = [0, 1]
RECIPE: CropRecipe = dataclasses.replace(RECIPES["deit"], size=SIZE, group=GROUP)
ENCODINGS = {
    "hard": HardEncoding(positions=16, classes=CLASSES, row_bytes=24),  # some pages spill
    "soft": SoftEncoding(positions=16, classes=CLASSES),
}


@dataclasses.dataclass(frozen=True)
class Scene:
    """Where the data and the weights lie, and a folder to work in."""

    folder: Path

    @functools.cached_property
    def data(self) -> Path:
        return write_shapes(self.folder / "shapes", train=IMAGES, val=16)

    @functools.cached_property
    def weights(self) -> Path:
        """Random but lively: winners differ from place to place."""
        import timm
        from safetensors.torch import save_file

        path = self.folder / "teacher.safetensors"
        if not path.exists():
            torch.manual_seed(3)
            model = timm.create_model("test_resnet", num_classes=CLASSES)
            for module in model.modules():
                if isinstance(module, torch.nn.Linear):
                    module.weight.data.normal_(0, 0.5)
            save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
        return path

    @functools.cached_property
    def job(self) -> PrecomputeJob:
        teacher = load_teacher(
            "test_resnet",
            classes=CLASSES,
            size=SIZE,
            device=torch.device("cpu"),
            weights=self.weights,
            args={"output_stride": 8},
            chunk=64,
        )
        return PrecomputeJob(open_split(str(self.data), "train"), RECIPE, teacher, ENCODINGS, BLOCK)

    def warm_up(self) -> None:
        """Load compiled code once for all forks, without the teacher: OpenMP's threads do not survive a fork."""
        op_kernels.load()
        dense_BPC = torch.zeros(2, self.job.teacher.positions, self.job.header.data["classes"])
        for encoding in self.job.encodings.values():
            encoding.encode(dense_BPC, dense_BPC.mean(1))

    def fill(self, store: Path, rank: int = 0, world: int = 1) -> None:
        """Do what is left to do."""
        writer = StoreWriter(store, self.job.header)
        precompute(self.job, writer, SEEDS, workers=0, rank=rank, world=world)


def content(store: Path) -> dict[str, bytes]:
    """Every file of a store; empty folders, claims and half-written files are none."""
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.relative_to(store).parts[0] not in (".writing", ".claims", ".writers")
    }
