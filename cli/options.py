"""Options that several commands share, and what they mean."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cskd_pipeline.errors import UsageError

from .key_value import KeyValue

if TYPE_CHECKING:
    import torch

    from cskd_pipeline.crops.recipe import CropRecipe
    from cskd_pipeline.samples import SampleIndex
    from cskd_pipeline.teacher import Teacher

Command = TypeVar("Command", bound=Callable[..., Any])


def options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several option decorators as one, in the order they are shown."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def data_options(*, required: bool = True) -> Callable[[Command], Command]:
    """`--data` and `--data-root`."""
    return options(
        click.option(
            "--data",
            required=required,
            help="A known data set (imagenet-1k, imagenette, cifar10, shapes), a manifest file, a folder of images or "
            "tar shards, a tar pattern, or an index.",
        ),
        click.option(
            "--data-root", type=click.Path(), help="Where a known data set lies (or the environment: CSKD_DATA_ROOT)."
        ),
    )


teacher_options = options(
    click.option("--teacher", help="A timm CNN, by name or alias (regnety_160 is DeiT's teacher)."),
    click.option("--teacher-weights", type=click.Path(path_type=Path), help="Its weights, .safetensors or .pth."),
    click.option("--teacher-arg", "teacher_args", type=KeyValue(), multiple=True, help="For timm: output_stride=8."),
    click.option(
        "--teacher-precision",
        type=click.Choice(["fp32", "bf16", "fp16"]),
        default="fp32",
        show_default=True,
        help="Autocast dtype of its forward pass.",
    ),
    click.option("--channels-last", is_flag=True, help="Run it in channels-last memory format."),
    click.option("--compile-teacher", is_flag=True, help="Run it through torch.compile."),
    click.option(
        "--chunk", type=int, default=64, show_default=True, help="Crops per forward pass, always padded to it."
    ),
    click.option(
        "--global-source",
        type=click.Choice(["mean", "head"]),
        default="mean",
        show_default=True,
        help="Global logits: mean of the dense ones (CSKD), or the model's own.",
    ),
)

recipe_options = options(
    click.option("--recipe", default="deit", show_default=True, help="Crop recipe: deit or plain."),
    click.option("--recipe-arg", "recipe_args", type=KeyValue(), multiple=True, help="Change a field: erase=0, key=1."),
    click.option("--size", type=int, default=224, show_default=True, help="Side of the crops in pixels."),
)

machine_options = options(
    click.option("--device", help="cpu, cuda or cuda:N; a GPU is used where there is one."),
    click.option("--workers", default="auto", show_default=True, help="Processes that make crops; 0 for none."),
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def worker_count(text: str) -> int:
    """The number of `--workers`: the processors at hand shared among the ranks of this node, one kept free.

    Raises:
        UsageError: it is neither a number nor "auto".
    """
    if text == "auto":
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, min(16, processors // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1))
    if not text.isdigit():
        raise UsageError(f"--workers must be a number or auto, found {text!r}")
    return int(text)


def open_data(data: str, split: str, root: str | None) -> SampleIndex:
    """The index of a split, with a progress bar where it has to be built."""
    from tqdm import tqdm

    from cskd_pipeline.samples import open_split

    with tqdm(desc=f"indexing {split}", unit="image", leave=False, disable=None, file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return open_split(data, split, root=root, progress=progress)


def make_recipe(name: str, args: tuple[tuple[str, Any], ...], size: int) -> CropRecipe:
    """The recipe that `--recipe`, `--recipe-arg` and `--size` describe.

    Raises:
        UsageError: the name or a field is unknown, or a value out of bounds.
    """
    from cskd_pipeline.crops.recipe import RECIPES, CropRecipe
    from cskd_pipeline.records.checks import require_choice

    require_choice("recipe", name, RECIPES)
    return CropRecipe.from_json({**RECIPES[name].to_json(), "size": size, **dict(args)})


def make_teacher(options: dict[str, Any], *, classes: int, size: int, device: torch.device) -> Teacher:
    """The teacher that the teacher options describe.

    Raises:
        UsageError, DataError, MismatchError: as `load_teacher`.
    """
    from cskd_pipeline.teacher import load_teacher

    if not options["teacher"]:
        raise UsageError("no teacher is given; name one with --teacher, such as regnety_160")
    return load_teacher(
        options["teacher"],
        classes=classes,
        size=size,
        device=device,
        weights=options["teacher_weights"],
        args=dict(options["teacher_args"]),
        precision=options["teacher_precision"],
        channels_last=options["channels_last"],
        compile=options["compile_teacher"],
        chunk=options["chunk"],
        global_source=options["global_source"],
    )


def say(line: str) -> None:
    """A line of progress, on stderr."""
    click.echo(line, err=True)
