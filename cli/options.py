"""Options that several commands share, and what they mean."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cskd_pipeline.errors import DataError, UsageError

from .key_value import KeyValue

if TYPE_CHECKING:
    import torch

    from cskd_pipeline.crops.recipe import CropRecipe
    from cskd_pipeline.data import SampleIndex
    from cskd_pipeline.models.teacher import Teacher

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")

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
            metavar="DATA",
            help="A known data set (imagenet-1k, imagenette, cifar10, shapes), a folder of images or of tar shards, "
            "a tar pattern, an address of tars (s3://bucket/path), a manifest file (.yaml), or an index.",
        ),
        click.option(
            "--data-root",
            type=click.Path(),
            metavar="FOLDER",
            help="Folder, or address of tars, that holds the known data set.  [default: $CSKD_DATA_ROOT]",
        ),
    )


teacher_options = options(
    click.option("--teacher", metavar="MODEL", help="A CNN of timm; regnety_160 is the published teacher."),
    click.option(
        "--teacher-weights",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Its weights (.safetensors, .pth).  [default: timm's pretrained ones]",
    ),
    click.option(
        "--teacher-arg",
        "teacher_args",
        type=KeyValue(),
        multiple=True,
        help="An argument for timm's constructor, such as output_stride=8; may be repeated.",
    ),
    click.option(
        "--teacher-precision",
        type=click.Choice(["fp32", "bf16", "fp16"]),
        default="fp32",
        show_default=True,
        help="Number format of its forward pass.",
    ),
    click.option("--channels-last", is_flag=True, help="Run the teacher in channels-last memory format."),
    click.option("--compile-teacher", is_flag=True, help="Run the teacher through torch.compile."),
    click.option(
        "--chunk",
        type=int,
        default=64,
        show_default=True,
        help="Crops per forward pass of the teacher, even; part of what the labels depend on.",
    ),
    click.option(
        "--global-source",
        type=click.Choice(["mean", "head"]),
        default="mean",
        show_default=True,
        help="Global targets: the mean of the dense logits (as published), or the teacher's own output.",
    ),
)

recipe_options = options(
    click.option("--recipe", metavar="NAME", default="deit", show_default=True, help="Crop recipe: deit or plain."),
    click.option(
        "--recipe-arg",
        "recipe_args",
        type=KeyValue(),
        multiple=True,
        help="Change a field of the recipe, such as erase=0 or key=1; may be repeated.",
    ),
    click.option("--size", type=int, default=224, show_default=True, help="Side of the crops in pixels."),
)

machine_options = options(
    click.option("--device", metavar="NAME", help="cpu, cuda or cuda:N.  [default: a GPU where there is one]"),
    click.option(
        "--workers",
        metavar="NUMBER",
        default="auto",
        show_default=True,
        help="Processes that read images; 0 does it in the main process.",
    ),
)

augment_option = click.option(
    "--augment",
    type=click.Choice(["workers", "device"]),
    default="workers",
    show_default=True,
    help="Where RandAugment runs: in the processes that read images, or on the model's GPU, which relieves them. The "
    "crops are the same, to the bit.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def worker_count(text: str) -> int:
    """The number of `--workers`: the processors at hand shared among the ranks of this node, one kept free.

    Raises:
        UsageError: it is neither a number nor "auto".
    """
    if text == "auto":
        return max(1, min(16, _processors() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1))
    if not text.isdigit():
        raise UsageError(f"--workers must be a number or auto, found {text!r}")
    return int(text)


def _processors() -> int:
    """Those that this process may use: a container's quota counts, not its host."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text().split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup, or "max": no quota
        return count


def open_data(data: str, split: str, root: str | None) -> SampleIndex:
    """The index of a split, with a progress bar where it has to be built."""
    from tqdm import tqdm

    from cskd_pipeline.data import open_split

    with tqdm(desc=f"indexing {split}", unit="image", leave=False, disable=None, file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return open_split(data, split, root=root, progress=progress)


def is_index(data: str) -> bool:
    """Whether `--data` is the folder of an index, which knows one split."""
    from cskd_pipeline.data.index_files import HEADER_NAME

    return (Path(data) / HEADER_NAME).is_file()


def split_to_score(data: str, root: str | None) -> str | None:
    """The split of a data set that scores are taken on: val, else test, else None."""
    from cskd_pipeline.data import evaluation_split, resolve_data

    return None if is_index(data) else evaluation_split(resolve_data(data, root=root))


def require_fraction(option: str, value: float) -> None:
    """Nothing, if the value of this option is above 0 and at most 1.

    Raises:
        UsageError: it is not.
    """
    if not 0 < value <= 1:
        raise UsageError(f"{option} must be above 0 and at most 1, found {value}")


def require_context(ctx: click.Context, names: tuple[str, ...], *, without: str) -> None:
    """Nothing, if none of these parameters was given: without another option they would have no effect.

    Raises:
        UsageError: one was; names it.
    """
    for name in names:
        if ctx.get_parameter_source(name) not in (click.core.ParameterSource.DEFAULT, None):
            flag = "--" + name.replace("_args", "-arg").replace("_", "-")
            raise UsageError(f"{flag} is given without {without}, where it has no effect: give both, or neither")


def require_file(option: str, path: Path | None) -> None:
    """Nothing, if no path is given or a file is there.

    Raises:
        DataError: it is missing.
    """
    if path is not None and not path.is_file():
        raise DataError(f"{option} {path} {'is a folder' if path.is_dir() else 'does not exist'}; give a file")


def require_teacher(options: dict[str, Any]) -> None:
    """Nothing, if a teacher is named, timm knows it and its file of weights is there: what needs no data.

    Raises:
        UsageError, DataError: it is not so.
    """
    from cskd_pipeline.models.teacher.load import resolve_teacher

    if not options["teacher"]:
        raise UsageError("no teacher is given; name one with --teacher, such as regnety_160")
    resolve_teacher(options["teacher"])
    require_file("--teacher-weights", options["teacher_weights"])


def make_recipe(name: str, args: tuple[tuple[str, Any], ...], size: int) -> CropRecipe:
    """The recipe that `--recipe`, `--recipe-arg` and `--size` describe.

    Raises:
        UsageError: the name or a field is unknown, or a value out of bounds.
    """
    from cskd_pipeline.crops.recipe import RECIPES, CropRecipe
    from cskd_pipeline.record import require_choice

    require_choice("recipe", name, RECIPES)
    return CropRecipe.from_json({**RECIPES[name].to_json(), "size": size, **dict(args)})


def make_teacher(options: dict[str, Any], *, classes: int, size: int, device: torch.device) -> Teacher:
    """The teacher that the teacher options describe.

    Raises:
        UsageError, DataError, MismatchError: as `load_teacher`.
    """
    from cskd_pipeline.models.teacher import load_teacher

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
