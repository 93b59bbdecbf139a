"""timm's own token distillation: its task, loader, mixing, optimiser and schedule, with its teacher in memory.

    python experiments/timm_distillation.py --data DATA/imagenette160 --teacher resnet50 --teacher-weights FILE \
        --student deit_tiny_distilled_patch16_224 --size 96 --epochs 30 --out RUN

What `cskd-pipeline train --teacher` is compared with. It takes the options of that command that studies use, with
their meaning, and writes a metrics.jsonl like its own. Random numbers are timm's, so crops are others in every run.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from timm.data import Mixup, create_transform
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.task import TokenDistillationTask
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cskd_pipeline.data import SampleIndex, open_split
from cskd_pipeline.models.teacher.teacher import Teacher
from cskd_pipeline.runs.data import split_to_score
from cskd_pipeline.runs.settings import TeacherSettings

STUDENTS = {"deit_ti": "deit_tiny_distilled_patch16_224", "deit_s": "deit_small_distilled_patch16_224"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--student", default="deit_ti")
    parser.add_argument("--student-arg", action="append", default=[], type=argument)
    for name in ("teacher", "teacher-weights", "teacher-mean", "teacher-std", "teacher-classes"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--teacher-arg", action="append", default=[], type=argument)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--warmup-epochs", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--drop-path", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    for name in ("ema-decay", "eval-every", "checkpoint-every", "seeds"):
        parser.add_argument(f"--{name}", help="not used")
    train(parser.parse_args())


def argument(text: str) -> tuple[str, Any]:
    """KEY=VALUE, the value as JSON has it, else as text."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


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


def train(arguments: argparse.Namespace) -> None:
    torch.manual_seed(arguments.seed)
    index = open_split(arguments.data, "train")
    test = open_split(arguments.data, split_to_score(arguments.data, None))
    student = timm.create_model(
        STUDENTS.get(arguments.student, arguments.student),
        num_classes=len(index.classes),
        drop_path_rate=arguments.drop_path,
        **{"img_size": arguments.size, **dict(arguments.student_arg)},
    )
    settings = TeacherSettings(
        teacher=arguments.teacher,
        teacher_weights=arguments.teacher_weights and Path(arguments.teacher_weights),
        teacher_args=dict(arguments.teacher_arg),
        teacher_mean=arguments.teacher_mean,
        teacher_std=arguments.teacher_std,
        teacher_classes=arguments.teacher_classes,
        chunk=arguments.batch_size,
    )
    teacher = settings.load_teacher(index, size=arguments.size, device=torch.device("cpu"))
    task = TokenDistillationTask(
        student, Logits(teacher), criterion=SoftTargetCrossEntropy(), distill_type="hard", task_loss_weight=0.5
    )
    shown = {"mean": student.pretrained_cfg["mean"], "std": student.pretrained_cfg["std"], "interpolation": "bicubic"}
    crops = create_transform(
        arguments.size, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25, re_mode="pixel", **shown
    )
    plain = create_transform(arguments.size, crop_pct=0.875, **shown)
    batches = DataLoader(Images(index, crops), arguments.batch_size, shuffle=True, drop_last=True)
    mix = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=len(index.classes))
    optimizer = create_optimizer_v2(student, opt="adamw", lr=arguments.lr, weight_decay=0.05)
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=arguments.epochs * len(batches),
        lr_min=1e-5,
        warmup_t=arguments.warmup_epochs * len(batches),
        warmup_lr_init=1e-6,
        t_in_epochs=False,
    )
    updates = 0
    arguments.out.mkdir(parents=True)
    for epoch in range(arguments.epochs):
        began = time.monotonic()
        task.train()
        for pixels, labels in batches:
            loss = task(*mix(pixels, labels))["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            updates += 1
            schedule.step_update(updates)
        row: dict[str, Any] = {"epoch": epoch, "seconds": time.monotonic() - began}
        if epoch + 1 == arguments.epochs:
            row["model/two_head/top1"] = score(student, Images(test, plain))
        with (arguments.out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


@torch.no_grad()
def score(student: nn.Module, images: Images) -> float:
    """Top-1 in per cent of the average of both heads, which timm's distilled models answer with."""
    student.eval()
    batches = DataLoader(images, 250)
    return 100 * sum(int((student(pixels).argmax(1) == labels).sum()) for pixels, labels in batches) / len(images)


if __name__ == "__main__":
    main()
