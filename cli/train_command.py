"""`cskd-pipeline train`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cskd_pipeline.errors import MismatchError, RetryError, UsageError

from .config_file import add_defaults, config_option
from .key_value import KeyValue
from .options import (
    augment_option,
    data_options,
    json_option,
    machine_options,
    make_recipe,
    make_teacher,
    open_data,
    recipe_options,
    require_context,
    require_file,
    require_fraction,
    require_teacher,
    say,
    split_to_score,
    teacher_options,
    worker_count,
)
from .train_options import TRAIN_FIELDS, train_options

if TYPE_CHECKING:
    import torch

    from cskd_pipeline.crops.recipe import CropRecipe
    from cskd_pipeline.data import SampleIndex
    from cskd_pipeline.objectives import Objective
    from cskd_pipeline.replay import TargetProvider


def _preset(ctx: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    if name is not None:
        from cskd_pipeline.presets import find_preset

        preset = find_preset(name)
        defaults = {"student": preset.student, "objective": preset.objective["name"], "data": preset.data}
        add_defaults(ctx, {**defaults, "repeats": preset.repeats, **preset.train}, below=True)
    return name


@click.command()
@data_options()
@click.option("--split", metavar="NAME", default="train", show_default=True, help="Split to train on.")
@click.option(
    "--labels",
    metavar="STORE",
    help="Label store to train from, a folder or s3://bucket/path; it fixes recipe and size of the crops.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="RUN", help="Run folder.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out; begin it if it has not begun.")
@click.option(
    "--student",
    metavar="MODEL",
    default="deit_s",
    show_default=True,
    help="deit_ti, deit_s, deit_b, or any model of timm; to distil into, a vision transformer.",
)
@click.option(
    "--student-arg",
    "student_args",
    type=KeyValue(),
    multiple=True,
    help="An argument for timm's constructor, such as img_size=64; may be repeated.",
)
@click.option(
    "--student-weights",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Weights to start from; classifiers for other classes start afresh.",
)
@click.option(
    "--objective",
    metavar="NAME",
    help="supervised, deit or cskd.  [default: cskd with --labels or --teacher, else supervised]",
)
@click.option(
    "--objective-arg",
    "objective_args",
    type=KeyValue(),
    multiple=True,
    help="A setting of the objective: mode=hard|soft, schedule=linear|x2|cos|local|global, alpha, weight or "
    "temperature; may be repeated.",
)
@click.option(
    "--seeds",
    metavar="LIST",
    help="Augmentation seeds to cycle through, one an epoch: 0:30.  [default: all complete ones of the store; without "
    "a store a new one every epoch]",
)
@click.option(
    "--repeats", type=int, default=1, show_default=True, help="Repeated augmentation: seeds shown in an epoch."
)
@click.option(
    "--shuffle",
    type=click.Choice(["full", "blocks"]),
    help="full: any image at any time. blocks: groups of consecutive samples, which reads locally, and decodes an "
    "image once for its repeated crops, which wait in memory.  [default: blocks with --repeats, else full]",
)
@click.option(
    "--canary",
    type=float,
    default=0.01,
    show_default=True,
    help="Share of replayed crops that are compared with the store's checksums, 0 to 1.",
)
@click.option(
    "--label-memory",
    type=click.Choice(["tables", "low"]),
    default="tables",
    show_default=True,
    help="Decode whole seeds ahead into tables that the node shares, or (low) read what each batch needs, slowly.",
)
@click.option(
    "--scratch",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    envvar="CSKD_SCRATCH",
    help="Folder on a local disk for decoded labels.  [default: /dev/shm if they fill at most half of what is free, "
    "else the folder for temporary files]",
)
@train_options
@click.option("--eval-split", metavar="NAME", help="Split to evaluate on, or none.  [default: val, else test]")
@click.option(
    "--crop-pct", type=float, default=0.875, show_default=True, help="Share of the image that evaluation sees."
)
@click.option(
    "--log",
    "trackers",
    type=click.Choice(["tensorboard", "wandb"]),
    multiple=True,
    help="Where to send the metrics besides metrics.csv; may be repeated.",
)
@recipe_options
@teacher_options
@machine_options
@augment_option
@config_option
@click.option(
    "--preset",
    metavar="NAME",
    is_eager=True,
    callback=_preset,
    help="Published settings as defaults: cskd-ti, cskd-s, cskd-b, deit-ti, deit-s or deit-b.",
)
@json_option
@click.pass_context
def train(ctx: click.Context, /, **options: Any) -> None:
    """Train a student on replayed crops.

    \b
    with --labels STORE    on stored targets; the teacher does not run
    with --teacher MODEL   on targets of a teacher that runs beside
    with neither           on true labels: a baseline, or a teacher of your own

    RUN will hold metrics.csv, the weights best, last and ema (.safetensors), and what --resume needs.

    \b
    cskd-pipeline train --preset cskd-s --data-root DATA \\
        --labels labels.zarr --out run
    """
    from cskd_pipeline.loading import CropLoader, EpochOrder, killed_workers_named
    from cskd_pipeline.models.student import create_student
    from cskd_pipeline.models.timm_model import normalisation
    from cskd_pipeline.models.weights import weights_digest
    from cskd_pipeline.replay import ReplaySource
    from cskd_pipeline.runtime.device import process_group
    from cskd_pipeline.runtime.ranks import on_first_rank, rank, world_size
    from cskd_pipeline.runtime.stopping import stop_on_signals
    from cskd_pipeline.training import TrainConfig
    from cskd_pipeline.training import train as run
    from cskd_pipeline.training.run_folder import RunFolder

    config = TrainConfig(**{f: options[f] for f, *_ in TRAIN_FIELDS if options[f] is not None})
    objective = _objective(options)
    workers = worker_count(options["workers"])
    _check_request(ctx, options)
    with process_group(options["device"]) as device:
        on_first_rank(lambda: RunFolder(options["out"]).require_free(resume=options["resume"]))
        targets = _targets(options, objective, config.epochs, device)
        index, recipe = targets.index, targets.recipe
        order = EpochOrder(
            recipe=recipe,
            seeds=tuple(targets.seeds),
            total=len(index),
            batch=config.batch_size,
            repeats=options["repeats"],
            key=config.seed,
            shuffle=options["shuffle"] or ("blocks" if options["repeats"] > 1 else "full"),
        )
        student = create_student(
            options["student"],
            classes=len(index.classes),
            grid=targets.grid if objective.dense else None,
            args=dict(options["student_args"]),
            drop_path=config.drop_path,
            distillation=bool(objective.needs),
            weights=options["student_weights"],
            seed=config.seed,
        )
        if student.fresh:
            say(f"started afresh, for {options['student_weights']} does not fit them: {', '.join(student.fresh)}")
        start = weights_digest(student.model)
        _check_input_size(student, recipe.size)
        mean, std = normalisation(student.model)
        on_gpu = device.type == "cuda"
        loader = CropLoader(
            index,
            recipe,
            workers=workers,
            augment=options["augment"] == "workers",
            pin_memory=on_gpu,
            ahead=order.ahead * config.accumulation,
        )
        source = ReplaySource(
            order=order,
            loader=loader,
            provider=targets.provider,
            mean=mean,
            std=std,
            device=device,
            rank=rank(),
            world=world_size(),
            accumulation=config.accumulation,
            # A live teacher needs its flags of cuDNN to itself while it runs.
            ahead=int(on_gpu and not options["teacher"]),
        )
        evaluation = _evaluation(options, size=recipe.size, classes=index.classes, norm=(mean, std), device=device)
        with (
            contextlib.closing(targets.provider),
            stop_on_signals() as stop,
            _resumable(),
            killed_workers_named(),
            loader,
        ):
            summary = run(
                config,
                student=student,
                objective=objective,
                source=source,
                evaluation=evaluation,
                run_folder=options["out"],
                device=device,
                resume=options["resume"],
                stop=stop,
                extra={
                    **targets.identity,
                    "data": {"name": index.name, "split": index.split, "digest": index.digest},
                    "classes": list(index.classes),
                    "recipe": recipe.to_json(),
                    "seeds": targets.seeds,
                    "repeats": options["repeats"],
                    "shuffle": order.shuffle,
                    "crop_pct": options["crop_pct"],
                    "evaluation": None if evaluation is None else [evaluation.index.split, evaluation.index.digest],
                    "start": None if options["student_weights"] is None else start,
                },
                notes={"workers": workers, "preset": options["preset"]},
                trackers=options["trackers"],
            )
        if rank() == 0:
            if options["as_json"]:
                click.echo(json.dumps(summary.to_json()))
            else:
                best = summary.best
                scored = (
                    f", best {best.head} top-1 {best.top1:.2f} % ({best.weights}, epoch {best.epoch})" if best else ""
                )
                click.echo(f"{options['out']}: {summary.epochs} epochs, {summary.updates} updates{scored}")


@dataclasses.dataclass(frozen=True, slots=True)
class _Supply:
    """What the student trains on, and what a resumed run must find again."""

    index: SampleIndex
    recipe: CropRecipe
    seeds: list[int]
    provider: TargetProvider
    grid: tuple[int, int] | None
    identity: dict[str, Any]


TEACHER_SETTINGS = (
    "teacher_weights",
    "teacher_args",
    "teacher_precision",
    "channels_last",
    "compile_teacher",
    "chunk",
    "global_source",
)


def _check_request(ctx: click.Context, options: dict[str, Any]) -> None:
    """Nothing, if the options agree with one another: all that can be told before data is read or a model is built."""
    from cskd_pipeline.models.student.create import resolve_name
    from cskd_pipeline.replay import Canary
    from cskd_pipeline.training.trackers import require_trackers

    if options["labels"] is not None:
        if options["teacher"]:
            raise UsageError("--labels and --teacher exclude each other: stored targets, or a live teacher")
        for name in ("recipe", "recipe_args", "size"):
            if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
                flag = "--" + name.replace("_args", "-arg")
                raise UsageError(f"{flag} cannot be given with --labels: the recipe is the store's; leave it out")
    if options["teacher"]:
        require_teacher(options)
    else:
        require_context(ctx, TEACHER_SETTINGS, without="--teacher")
    if options["labels"] is None:
        require_context(ctx, ("canary", "label_memory"), without="--labels")
        if ctx.get_parameter_source("scratch") is click.core.ParameterSource.COMMANDLINE:  # not: of the environment
            require_context(ctx, ("scratch",), without="--labels")
    resolve_name(options["student"])
    require_file("--student-weights", options["student_weights"])
    require_fraction("--crop-pct", options["crop_pct"])
    require_trackers(options["trackers"])
    Canary(options["canary"])


def _objective(options: dict[str, Any]) -> Objective:
    from cskd_pipeline.objectives import create_objective
    from cskd_pipeline.presets import find_preset

    taught = options["labels"] is not None or bool(options["teacher"])
    name = options["objective"] or ("cskd" if taught else "supervised")
    published = find_preset(options["preset"]).objective if options["preset"] else {}
    settings = {k: v for k, v in published.items() if k != "name"} if published.get("name") == name else {}
    objective = create_objective(name, **{**settings, **dict(options["objective_args"])})
    if objective.needs and not taught:
        raise UsageError(f"objective {name} needs a teacher's targets: give --labels STORE, or --teacher NAME")
    return objective


def _targets(options: dict[str, Any], objective: Objective, epochs: int, device: torch.device) -> _Supply:
    from cskd_pipeline.replay import NoTargets
    from cskd_pipeline.seeds import parse_seeds
    from cskd_pipeline.training import RunFolder

    seeds = None if options["seeds"] is None else parse_seeds(options["seeds"])
    if seeds is None and options["resume"]:  # its own, though the store may have got more since
        seeds = RunFolder(options["out"]).settings().get("extra", {}).get("seeds")
    if options["labels"] is not None:
        return _stored(options, objective, seeds)
    index = open_data(options["data"], options["split"], options["data_root"])
    recipe = make_recipe(options["recipe"], options["recipe_args"], options["size"])
    fresh = list(range(epochs * options["repeats"]))  # a new view of every image in every epoch
    if not options["teacher"]:
        return _Supply(index, recipe, seeds or fresh, NoTargets(), None, {"targets": "none"})
    from cskd_pipeline.models.teacher import LiveTargets

    teacher = make_teacher(options, classes=len(index.classes), size=recipe.size, device=device)
    identity = {"targets": "live", "teacher": teacher.spec.to_json()}
    return _Supply(index, recipe, seeds or fresh, LiveTargets(teacher, recipe), teacher.grid, identity)


@contextlib.contextmanager
def _resumable() -> Iterator[None]:
    """Has errors that say "try again" say how: the run folder exists by now."""
    try:
        yield
    except RetryError as error:
        hint = "" if "--resume" in str(error) else "; then give the same command with --resume"
        raise RetryError(f"{error}{hint}") from error


def _stored(options: dict[str, Any], objective: Objective, seeds: list[int] | None) -> _Supply:
    from cskd_pipeline.crops.recipe import CropRecipe
    from cskd_pipeline.replay import Canary, StoredTargets
    from cskd_pipeline.store import StoreReader

    store = StoreReader(options["labels"])
    header = store.header
    index = open_data(options["data"], options["split"], options["data_root"])
    found = {"samples": len(index), "classes": len(index.classes), "digest": index.digest}
    for name, value in found.items():
        if header.data[name] != value:
            raise MismatchError(
                f"{store.path} was made for {header.data['name']} {header.data['split']} with {name} "
                f"{header.data[name]}, --data {options['data']} has {name} {value}; use the data the labels belong to"
            )
    chosen = seeds or store.complete_seeds()
    if seeds is None and not chosen:
        store.require_complete(store.seeds() or [0])
    store.require_complete(chosen)
    # Also for an objective that needs no targets: its crops are checked against the store all the same.
    provider = StoredTargets(
        store,
        needs=objective.needs,
        canary=Canary(options["canary"]),
        memory=options["label_memory"],
        scratch=options["scratch"],
    )
    identity = {"targets": "stored", "teacher": header.teacher, "encodings": header.encodings}
    return _Supply(index, CropRecipe.from_json(header.recipe), chosen, provider, header.grid, identity)


def _check_input_size(student: Any, size: int) -> None:
    expected = getattr(getattr(student.model, "patch_embed", None), "img_size", None)
    if expected is not None and tuple(expected) != (size, size):
        raise MismatchError(
            f"the crops are {size} x {size} pixels, the student takes {expected[0]} x {expected[1]}; "
            f"give --student-arg img_size={size}, or crops of that size"
        )


def _evaluation(
    options: dict[str, Any], *, size: int, classes: tuple[str, ...], norm: Any, device: torch.device
) -> Any:
    from cskd_pipeline.loading import EvaluationSet
    from cskd_pipeline.runtime.ranks import rank, world_size

    split = options["eval_split"]
    if split is None:
        split = split_to_score(options["data"], options["data_root"])
        if split is None:
            say("no val or test split is at hand: the student is not evaluated")
    if split in (None, "none"):
        return None
    index = open_data(options["data"], split, options["data_root"])
    if index.classes != classes:
        raise MismatchError(
            f"split {split} has {len(index.classes)} classes that are not the {len(classes)} of the training split"
        )
    mean, std = norm
    return EvaluationSet(
        index=index,
        size=size,
        crop_pct=options["crop_pct"],
        mean=mean,
        std=std,
        device=device,
        workers=min(4, worker_count(options["workers"])),
        rank=rank(),
        world=world_size(),
    )
