"""Before labels are made: does the teacher know these images, and does it mean the same classes by its outputs?

Labels from a teacher whose classes are in another order, or whose input is normalised otherwise, look like any others.
They cost days, and students as many again.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from cskd_pipeline.errors import MismatchError
from cskd_pipeline.labelling.job import PrecomputeJob
from cskd_pipeline.loading import CropLoader, EvaluationSet, block_batches
from cskd_pipeline.models.normalisation import PUBLISHED
from cskd_pipeline.models.teacher.classes import NATURAL, natural_rows
from cskd_pipeline.store import TeacherCheck

MOST_IMAGES = 2000
MOST_SECONDS = 20.0
"""Seconds after which no further crop of either kind is scored: a slow teacher sees fewer."""

Batch = TypeVar("Batch")

_SIGMAS = 4
_SHOWN = 3
_WHOLE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@dataclasses.dataclass(frozen=True, slots=True)
class _Answers:
    """What the teacher said about N images, from its global logits.

    Attributes:
        labels_N: the true classes.
        winners_N: its classes.
        among_five_N: whether the true class was among its five best.
        confidence_N: the winners' probabilities.
        right_N: whether it was right, by normalisation of its input.
    """

    labels_N: NDArray[np.int64]
    winners_N: NDArray[np.int64]
    among_five_N: NDArray[np.bool_]
    confidence_N: NDArray[np.float32]
    right_N: Mapping[str, NDArray[np.bool_]]


def check_teacher(
    job: PrecomputeJob,
    *,
    seed: int,
    crop_pct: float,
    workers: int,
    reordered: bool = False,
    option: str = "--teacher",
) -> TeacherCheck:
    """Score a job's teacher on up to `MOST_IMAGES` images: on centre crops, and on the recipe's crops of one seed.

    Args:
        job: the teacher, images and recipe.
        seed: of the recipe's crops.
        crop_pct: share of the resized image's shorter side that a centre crop takes.
        workers: processes that read images.
        reordered: its outputs were put in order already.
        option: what it is given by, for advice.

    Raises:
        MismatchError: another order of its outputs explains its answers.
        DataError: an image cannot be read; names it.
    """
    answers = _plain_answers(job, crop_pct=crop_pct, workers=workers)
    right_N = answers.winners_N == answers.labels_N
    refuse_other_order(
        answers.winners_N, answers.labels_N, job.index.classes, reordered=reordered, option=f"{option}-classes"
    )
    recipe_right_n, recipe_confidence_n = _recipe_answers(job, seed=seed, workers=workers)
    images, classes = len(right_N), len(job.index.classes)
    warnings = [
        line
        for line in (
            _near_chance(right_N, classes, option),
            _better_normalisation(right_N, answers.right_N, option),
        )
        if line
    ]
    return TeacherCheck(
        images=images,
        top1=float(right_N.mean()),
        top5=float(answers.among_five_N.mean()),
        confidence=float(answers.confidence_N.mean()),
        recipe_crops=len(recipe_right_n),
        recipe_top1=float(recipe_right_n.mean()),
        recipe_confidence=float(recipe_confidence_n.mean()),
        normalised={name: float(found.mean()) for name, found in answers.right_N.items()},
        warnings=tuple(warnings),
    )


def refuse_other_order(
    winners_N: NDArray[np.int64],
    labels_N: NDArray[np.int64],
    classes: Sequence[str],
    *,
    reordered: bool = False,
    option: str = "--teacher-classes",
) -> None:
    """Raise MismatchError if the winners of N images agree far better with their labels when classes are renumbered.

    Arguments `reordered` and `option` as those of `check_teacher`.
    """
    learnt, judged = slice(0, None, 2), slice(1, None, 2)
    own = winners_N[judged] == labels_N[judged]
    orders = {"": _matching(winners_N[learnt], labels_N[learnt], len(classes))}
    if not reordered:
        orders = {NATURAL: np.array(natural_rows(classes)), **orders}
    for name, order_C in orders.items():
        renumbered = order_C[labels_N[judged]] == winners_N[judged]
        gain = renumbered.sum() - own.sum()
        if gain <= len(own) / 10 or gain <= _SIGMAS * math.sqrt((renumbered != own).sum()):
            continue
        if name:
            how = "as timm's reader sorts folders, by the numbers in their names"
            remedy = f"give {option} {name}"
        else:
            order_C = _matching(winners_N, labels_N, len(classes))
            moved = [c for c in range(len(classes)) if order_C[c] not in (c, -1)]
            means = ", ".join(f"output {order_C[c]} for {classes[c]!r} (class {c})" for c in moved[:_SHOWN])
            how = means + (f" and {len(moved) - _SHOWN:,} more" if len(moved) > _SHOWN else "")
            remedy = f"give {option} a file whose line N (from 0) names output N"
        raise MismatchError(
            f"the teacher's classes are in another order than the data's: it is right on {own.mean():.1%} of "
            f"{len(own):,} images, and on {renumbered.mean():.1%} with its outputs reordered ({how}); {remedy}, or "
            "--no-teacher-check to store its labels as they are"
        )


def _matching(winners_N: NDArray[np.int64], labels_N: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """int64 [C], an output for every class, each once, those seen together most often first; -1 where none is left."""
    pairs, counts = np.unique(labels_N * classes + winners_N, return_counts=True)
    order_C = np.full(classes, -1)
    taken = set()
    for pair in pairs[np.argsort(-counts, kind="stable")].tolist():
        label, output = divmod(pair, classes)
        if order_C[label] < 0 and output not in taken:
            order_C[label] = output
            taken.add(output)
    return order_C


def _near_chance(right_N: NDArray[np.bool_], classes: int, option: str) -> str:
    chance, images = 1 / classes, len(right_N)
    noise = _SIGMAS * math.sqrt(chance * (1 - chance) / images)
    if right_N.mean() > chance + max(noise, 0.05 * (1 - chance)):
        return ""
    return (
        f"the teacher is right on {right_N.mean():.1%} of {images:,} images, where guessing is on {chance:.1%}: its "
        f"labels will teach little. Are {option}-weights, {option}-mean and {option}-std, and {option}-classes those "
        "that it was trained with?"
    )


def _better_normalisation(right_N: NDArray[np.bool_], others: Mapping[str, NDArray[np.bool_]], option: str) -> str:
    name = max(others, key=lambda other: others[other].sum(), default="")
    if not name:
        return ""
    gain, changed = others[name].sum() - right_N.sum(), (others[name] != right_N).sum()
    if gain <= max(_SIGMAS * math.sqrt(changed), 0.01 * len(right_N)):
        return ""
    return (
        f"the teacher is right on {right_N.mean():.1%} of {len(right_N):,} images, and would be on "
        f"{others[name].mean():.1%} with its input normalised otherwise: {option}-mean {name} {option}-std {name}"
    )


def _plain_answers(job: PrecomputeJob, *, crop_pct: float, workers: int) -> _Answers:
    teacher, spec = job.teacher, job.teacher.spec
    ways = {name: (values["mean"], values["std"]) for name, values in PUBLISHED.items()}
    ways = {"": (spec.mean, spec.std), **{name: way for name, way in ways.items() if way != (spec.mean, spec.std)}}
    images = EvaluationSet(
        job.index,
        job.recipe.size,
        crop_pct,
        *_WHOLE,
        teacher.device,
        batch=spec.chunk,
        workers=workers,
        images=MOST_IMAGES,
    )
    labels, winners, among, confidence = [], [], [], []
    right: dict[str, list[torch.Tensor]] = {name: [] for name in ways}
    for pixels_B3SS, labels_B in _for_a_while(images):
        for name, way in ways.items():
            mean, std = (torch.tensor(values, device=teacher.device)[:, None, None] for values in way)
            _, global_BC = teacher((pixels_B3SS - mean) / std)
            right[name].append(global_BC.argmax(1) == labels_B)
            if name == "":
                best_BK = global_BC.topk(min(5, global_BC.shape[1]), dim=1).indices
                labels.append(labels_B)
                winners.append(best_BK[:, 0])
                among.append((best_BK == labels_B[:, None]).any(1))
                confidence.append(global_BC.softmax(1).amax(1))
    return _Answers(
        labels_N=torch.cat(labels).cpu().numpy(),
        winners_N=torch.cat(winners).cpu().numpy(),
        among_five_N=torch.cat(among).cpu().numpy(),
        confidence_N=torch.cat(confidence).cpu().numpy(),
        right_N={name: torch.cat(found).cpu().numpy() for name, found in right.items() if name},
    )


def _recipe_answers(job: PrecomputeJob, *, seed: int, workers: int) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Whether the teacher named the class of each crop's larger part, and the probability of what it named."""
    teacher, recipe, total = job.teacher, job.recipe, len(job.index)
    rows = range(min(total, -(-MOST_IMAGES // recipe.group) * recipe.group))
    batches = block_batches(recipe, seed, rows, total=total, batch=teacher.spec.chunk)
    right, confidence = [], []
    with CropLoader(job.index, recipe, workers=workers) as loader:
        for crops in _for_a_while(loader.load(batches)):
            pixels = crops.pixels(recipe, mean=teacher.spec.mean, std=teacher.spec.std, device=teacher.device)
            labels = crops.labels(recipe, device=teacher.device)
            _, global_BC = teacher(pixels)
            larger_B = torch.where(labels.weight_B >= 0.5, labels.first_B, labels.second_B)
            right.append(global_BC.argmax(1) == larger_B)
            confidence.append(global_BC.softmax(1).amax(1))
    return torch.cat(right).cpu().numpy(), torch.cat(confidence).cpu().numpy()


def _for_a_while(batches: Iterable[Batch]) -> Iterator[Batch]:
    stop = time.monotonic() + MOST_SECONDS
    for batch in batches:
        yield batch
        if time.monotonic() > stop:
            return
