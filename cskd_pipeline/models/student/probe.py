"""One forward pass on zeros before anything else: timm's arguments can change what a model takes and returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from cskd_pipeline.batch import StudentOutput
from cskd_pipeline.errors import MismatchError, UsageError, first_line
from cskd_pipeline.models.student.heads import MapStudent, PlainStudent, Student, last_map


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


@torch.no_grad()
def add_adapter(student: Student, adapter: Callable[[tuple[int, int]], nn.Module | None], *, seed: int) -> None:
    """Give a student an objective's layers, made for the number and width of its patch tokens.

    They are initialised from `seed` without touching the global random state.
    """
    before = student.training
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        tokens = student.eval()(torch.zeros(1, 3, student.size, student.size)).tokens
        student.train(before)
        student.adapter = adapter(tuple(tokens[-1].shape[1:]))


def require_tiles(positions: tuple[int, int], grid: tuple[int, int], *, what: str, remedy: str) -> None:
    """Raise MismatchError unless the student's (rows, columns) pool to the teacher's grid by a whole factor."""
    (rows, columns), (height, width) = positions, grid
    if rows % height or columns % width:
        raise MismatchError(
            f"the student's {rows} x {columns} {what} do not pool to the teacher's {height} x {width} grid by a whole "
            f"factor; choose {remedy}"
        )


def fixed_size(plain: Student, *, size: int) -> tuple[int, int] | None:
    """(rows, columns) of the pixels that a model was built for, None if it takes crops of `size` as they are."""
    takes: Any = getattr(getattr(plain.model, "patch_embed", None), "img_size", None)
    if takes is not None:
        return (takes[0], takes[1])
    if not plain.model.pretrained_cfg.get("fixed_input_size"):
        return None
    try:
        require_answers(plain, size=size)
    except UsageError:
        return (plain.size, plain.size)
    return None


def other_size(size: int, takes: tuple[int, int]) -> MismatchError:
    """The error of crops of `size` pixels for a student that takes images of another size."""
    return MismatchError(
        f"the crops are {size} x {size} pixels, the student takes {takes[0]} x {takes[1]}; give --student-arg "
        f"img_size={size}, or crops of that size"
    )


@torch.no_grad()
def with_map_head(plain: PlainStudent) -> MapStudent:
    """The same model with a second head on its last feature map.

    Raises:
        UsageError: it gives none.
        MismatchError: the map does not pool to the grid.
    """
    model: Any = plain.model
    size = plain.size
    before = model.training
    model.eval()
    try:
        pixels = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        try:
            normed, (features, map_BhwD) = True, last_map(model, pixels, normed=True)
        except AssertionError:  # Hiera's stages have no norm to take
            normed, (features, map_BhwD) = False, last_map(model, pixels, normed=False)
        expected = model(pixels)
        fault = ""
        if not torch.allclose(
            model.forward_head(features), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())
        ):
            fault = "forward_head of its features gives other class logits than the model"
    except Exception as error:  # models without that part of timm's interface, each in its own way
        fault = first_line(error)
    finally:
        model.train(before)
    if fault:
        raise UsageError(
            f"{plain.spec.model} ({type(model).__name__}) gives no last feature map to distil into ({fault}); choose "
            "another student, such as deit_ti or resnet50, or an objective that reads class logits alone"
        )
    _, rows, columns, width = map_BhwD.shape
    if plain.spec.grid is not None:
        require_tiles((rows, columns), plain.spec.grid, what="positions", remedy="another stride or image size")
    return MapStudent(model, plain.spec, width=width, normed=normed)


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
