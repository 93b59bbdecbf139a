"""timm's own token distillation: its task, loader, mixing, optimiser and schedule, with its teacher in memory.

    python experiments/timm_distillation.py --data DATA/imagenette160 --teacher resnet50 --teacher-weights FILE \
        --student deit_tiny_distilled_patch16_224 --size 96 --epochs 30 --out RUN

What `cskd-pipeline train --teacher` is compared with. It has the options of that command, though not all have a
meaning here, and writes a metrics.jsonl like its own. Random numbers are timm's: no two seeds share a crop.
"""

from __future__ import annotations

import dataclasses
import io
import json
import time
from typing import Any

import timm
import torch
from cskd_pipeline_cli.options import request_command
from PIL import Image
from timm.data import Mixup, create_transform
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.task import TokenDistillationTask
from timm.utils import random_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cskd_pipeline.data import SampleIndex, open_split
from cskd_pipeline.models.teacher.teacher import Teacher
from cskd_pipeline.runs.data import split_to_score
from cskd_pipeline.runs.train import TrainRequest

STUDENTS = {"deit_ti": "deit_tiny_distilled_patch16_224", "deit_s": "deit_small_distilled_patch16_224"}


class Images(Dataset[tuple[Tensor, int]]):
    """Images decoded by Pillow and transformed by timm."""

    def __init__(self, index: SampleIndex, transform: Any) -> None:
        self.index, self.transform = index, transform

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        image = Image.open(io.BytesIO(self.index.read(row))).convert("RGB")
        while True:
            try:
                return self.transform(image), int(self.index.labels[row])
            except ValueError as error:  # posterizing to 0 bits, which Pillow 13 refuses: draw again
                if "bits" not in str(error):
                    raise


class Logits(nn.Module):
    """A teacher's global logits of crops in its own normalisation, which timm reads from `pretrained_cfg`."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher
        self.pretrained_cfg = {"mean": teacher.spec.mean, "std": teacher.spec.std}

    def forward(self, pixels_B3SS: Tensor) -> Tensor:
        return self.teacher(pixels_B3SS)[1].clone()


@request_command(TrainRequest, "Train a student by timm's own token distillation.")
def train(request: TrainRequest) -> None:
    """Train a distilled vision transformer as timm does."""
    random_seed(request.seed)
    index = open_split(request.data, "train")
    test = open_split(request.data, split_to_score(request.data, None))
    student = timm.create_model(
        STUDENTS.get(request.student, request.student),
        num_classes=len(index.classes),
        drop_path_rate=request.drop_path,
        **{"img_size": request.size, **request.student_args},
    )
    whole = dataclasses.replace(request, chunk=request.batch_size)
    teacher = whole.load_teacher(index, size=request.size, device=torch.device("cpu"))
    task = TokenDistillationTask(
        student, Logits(teacher), criterion=SoftTargetCrossEntropy(), distill_type="hard", task_loss_weight=0.5
    )
    shown = {"mean": student.pretrained_cfg["mean"], "std": student.pretrained_cfg["std"], "interpolation": "bicubic"}
    crops = create_transform(
        request.size, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25, re_mode="pixel", **shown
    )
    plain = create_transform(request.size, crop_pct=0.875, **shown)
    batches = DataLoader(Images(index, crops), request.batch_size, shuffle=True, drop_last=True)
    mix = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=len(index.classes))
    optimizer = create_optimizer_v2(student, opt="adamw", lr=request.lr, weight_decay=request.weight_decay)
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=request.epochs * len(batches),
        lr_min=request.min_lr,
        warmup_t=request.warmup_epochs * len(batches),
        warmup_lr_init=request.warmup_lr,
        t_in_epochs=False,
    )
    updates = 0
    request.out.mkdir(parents=True)
    for epoch in range(request.epochs):
        began = time.monotonic()
        task.train()
        for pixels, labels in batches:
            loss = task(*mix(pixels, labels))["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            updates += 1
            schedule.step_update(updates)
        row = {"epoch": epoch, "seconds": time.monotonic() - began}
        if epoch + 1 == request.epochs:
            row["model/two_head/top1"] = score(student, Images(test, plain))
        with (request.out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


@torch.no_grad()
def score(student: nn.Module, images: Images) -> float:
    """Top-1 in per cent of the average of both heads, which timm's distilled models answer with."""
    student.eval()
    batches = DataLoader(images, 250)
    return 100 * sum(int((student(pixels).argmax(1) == labels).sum()) for pixels, labels in batches) / len(images)


if __name__ == "__main__":
    train()
