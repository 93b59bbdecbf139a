"""One forward pass on zeros before anything else: timm's arguments can change what a model takes and returns."""

from __future__ import annotations

import torch

from cskd_pipeline.batch import StudentOutput
from cskd_pipeline.errors import MismatchError, UsageError, first_line
from cskd_pipeline.models.student.heads import Student


@torch.no_grad()
def require_answers(student: Student, *, size: int, batch: int = 1, training: bool = False) -> None:
    """Raise unless the student, on the CPU, gives logits of the right shapes for `batch` crops of `size` pixels.

    Neither its mode and buffers nor the global random state change. With `training` it is asked as in training, where
    it shows what a network needs of the batch.

    Raises:
        UsageError: it refuses such crops, or returns something else.
        MismatchError: it was built for images of another size.
    """
    before = student.training
    student.train(training)
    # Copies: batch normalisation would count what it sees.
    buffers = {name: buffer.clone() for name, buffer in student.named_buffers()}
    try:
        with torch.random.fork_rng(devices=[]):
            output = torch.func.functional_call(student, buffers, (torch.zeros(batch, 3, size, size),))
            fault = _fault(output, student, batch=batch)
    except Exception as error:  # models say it in their own ways
        fault = first_line(error)
        expected = getattr(getattr(student.model, "patch_embed", None), "img_size", None)
        if expected is not None and tuple(expected) != (size, size):
            raise other_size(size, expected) from error
    finally:
        student.train(before)
    if fault and training and batch == 1:
        raise UsageError(
            f"{student.spec.model} cannot learn from one crop of {size} x {size} pixels at a time ({fault}); a step "
            "of a rank needs two: raise --batch-size, or lower --accumulation or the number of ranks"
        )
    if fault:
        shown = ", ".join(f"{name}={value!r}" for name, value in student.spec.args.items())
        remedy = "mend or leave out --student-arg" if shown else "choose another student, or another --size"
        raise UsageError(
            f"{student.spec.model} {f'with {shown} ' if shown else ''}gives no class logits for crops of 3 x {size} x "
            f"{size} pixels: {fault}; {remedy}"
        )


def other_size(size: int, takes: tuple[int, int]) -> MismatchError:
    """The error of crops of `size` pixels for a student that takes images of another size."""
    return MismatchError(
        f"the crops are {size} x {size} pixels, the student takes {takes[0]} x {takes[1]}; give --student-arg "
        f"img_size={size}, or crops of that size"
    )


def _fault(output: StudentOutput, student: Student, *, batch: int) -> str:
    """What is wrong with the shapes; "" if nothing is."""
    one = (batch, student.spec.classes)
    wanted = {
        **dict.fromkeys(("cls_BC", "dist_BC", "conv_BC", "inv_BC"), one),
        "dense_BCHW": (*one, *(student.spec.grid or ())),
    }
    for name, shape in wanted.items():
        found = getattr(output, name)
        if isinstance(found, torch.Tensor) and found.shape != shape:
            return f"it returns {tuple(found.shape)} where {shape} is needed"
        if not isinstance(found, torch.Tensor) and (found is not None or name == "cls_BC"):
            return f"it returns a {type(found).__name__}, not a tensor"
    return ""
