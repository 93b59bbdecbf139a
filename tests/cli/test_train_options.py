"""`cli/train_options.py` repeats what the library knows, so that --help needs no torch: the two must agree."""

from __future__ import annotations

import dataclasses

import click
from cskd_pipeline_cli.main import main
from cskd_pipeline_cli.train_options import TRAIN_FIELDS

from cskd_pipeline.crops.recipe import RECIPES
from cskd_pipeline.labels import ENCODINGS
from cskd_pipeline.models.student.create import ALIASES
from cskd_pipeline.models.teacher import TeacherSpec
from cskd_pipeline.models.teacher.spec import GLOBAL_SOURCES
from cskd_pipeline.models.teacher.spec import PRECISIONS as TEACHER_PRECISIONS
from cskd_pipeline.objectives.objective import MODES
from cskd_pipeline.objectives.registry import OBJECTIVES
from cskd_pipeline.objectives.schedules import SCHEDULES
from cskd_pipeline.presets import PRESETS
from cskd_pipeline.training import TrainConfig
from cskd_pipeline.training.config import PRECISIONS
from cskd_pipeline.training.config import SCHEDULERS as LR_SCHEDULERS
from cskd_pipeline.training.trackers import TRACKERS


def option(command: str, name: str) -> click.Option:
    parameters = main.commands[command].params
    return next(p for p in parameters if isinstance(p, click.Option) and f"--{name}" in p.opts)


def choices(command: str, name: str) -> list[str]:
    kind = option(command, name).type
    assert isinstance(kind, click.Choice)
    return list(kind.choices)


def test_every_field_of_the_configuration_is_an_option_with_its_default() -> None:
    assert [(name, default) for name, _, default, _ in TRAIN_FIELDS] == [
        (field.name, field.default) for field in dataclasses.fields(TrainConfig)
    ]


def test_every_field_is_shown_by_train_with_its_default() -> None:
    for name, kind, default, _ in TRAIN_FIELDS:
        shown = option("train", name.replace("_", "-")).help or ""
        assert kind is bool or "[default: " in shown
        assert kind is bool or default is None or f"[default: {default}]" in shown


def test_every_choice_is_the_librarys() -> None:
    assert choices("train", "precision") == list(PRECISIONS)
    assert choices("train", "scheduler") == list(LR_SCHEDULERS)
    assert choices("train", "log") == list(TRACKERS)
    for command in ("precompute", "train"):
        assert choices(command, "teacher-precision") == list(TEACHER_PRECISIONS)
        assert choices(command, "global-source") == list(GLOBAL_SOURCES)


def test_every_name_that_help_lists_exists_and_none_is_missing() -> None:
    for command, name, known in (
        ("train", "objective", OBJECTIVES),
        ("train", "objective-arg", SCHEDULES),
        ("train", "objective-arg", MODES),
        ("train", "preset", PRESETS),
        ("train", "student", ALIASES),
        ("train", "recipe", RECIPES),
        ("precompute", "recipe", RECIPES),
        ("precompute", "targets", ENCODINGS),
    ):
        words = (option(command, name).help or "").replace(",", " ").replace(".", " ").replace("|", " ")
        listed = words.replace("=", " ").replace(";", " ").replace(":", " ").split()
        assert [text for text in known if text not in listed] == []


def test_the_teachers_defaults_are_the_specs() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(TeacherSpec)}
    for name, field in (
        ("teacher-precision", "precision"),
        ("channels-last", "channels_last"),
        ("compile-teacher", "compile"),
        ("chunk", "chunk"),
        ("global-source", "global_source"),
    ):
        parameter = option("precompute", name)
        found = False if parameter.is_flag else parameter.default
        assert found == defaults[field]
