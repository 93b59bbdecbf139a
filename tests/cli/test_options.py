"""Options are the settings of requests, and their help names what the library knows."""

from __future__ import annotations

import dataclasses
import re

import click
import pytest
from click.testing import CliRunner
from cskd_pipeline_cli.main import main
from cskd_pipeline_cli.options import request_command

import cskd_pipeline as cskd
from cskd_pipeline.crops.recipe import RECIPES
from cskd_pipeline.labels import ENCODINGS
from cskd_pipeline.models.student.create import ALIASES
from cskd_pipeline.models.teacher.spec import GLOBAL_SOURCES, PRECISIONS, TeacherSpec
from cskd_pipeline.objectives import OBJECTIVES
from cskd_pipeline.presets import PRESETS
from cskd_pipeline.runs.settings import CHUNK, SIZE
from cskd_pipeline.settings import Settings, kinds
from cskd_pipeline.training.learner import PRECISIONS as STUDENT_PRECISIONS
from cskd_pipeline.training.trackers import TRACKERS

REQUESTS = {
    "precompute": cskd.PrecomputeRequest,
    "train": cskd.TrainRequest,
    "eval": cskd.EvaluateRequest,
    "verify": cskd.VerifyRequest,
    "repair": cskd.RepairRequest,
    "index": cskd.IndexRequest,
    "export-labels": cskd.ExportLabelsRequest,
}


def option(command: str, name: str) -> click.Option:
    parameters = main.commands[command].params
    return next(p for p in parameters if isinstance(p, click.Option) and f"--{name}" in p.opts)


def choices(command: str, name: str) -> list[str]:
    kind = option(command, name).type
    assert isinstance(kind, click.Choice)
    return list(kind.choices)


@pytest.mark.parametrize("command", REQUESTS)
def test_every_setting_is_an_option_that_shows_its_default(command: str) -> None:
    request: type[Settings] = REQUESTS[command]
    assert set(kinds(request)) == {field.name for field in dataclasses.fields(request)}
    for kind in kinds(request).values():
        shown = option(command, kind.option.removeprefix("--")).help or ""
        assert kind.help in shown
        if isinstance(kind.default, int | float | str) and not isinstance(kind.default, bool):
            assert f"[default: {kind.default}]" in shown


def test_every_choice_is_the_librarys() -> None:
    assert choices("train", "precision") == list(STUDENT_PRECISIONS)
    assert choices("train", "log") == list(TRACKERS)
    for command in ("precompute", "train"):
        assert choices(command, "teacher-precision") == list(PRECISIONS)
        assert choices(command, "global-source") == list(GLOBAL_SOURCES)


def test_every_name_that_help_lists_exists_and_none_is_missing() -> None:
    for command, name, known in (
        ("train", "objective", OBJECTIVES),
        ("train", "preset", PRESETS),
        ("train", "student", ALIASES),
        ("train", "recipe", RECIPES),
        ("precompute", "recipe", RECIPES),
        ("precompute", "targets", ENCODINGS),
    ):
        words = re.sub(r"[,|=;:]|\.(?!\w)", " ", option(command, name).help or "")  # some names have a dot inside
        listed = words.split()
        assert [text for text in known if text not in listed] == []


def test_the_defaults_that_help_puts_in_words_are_those_of_the_teacher_and_the_recipe() -> None:
    spec = {field.name: field.default for field in dataclasses.fields(TeacherSpec)}
    shown = {name: kind.shown for name, kind in kinds(cskd.PrecomputeRequest).items()}
    assert shown["teacher_precision"] == spec["precision"]
    assert shown["global_source"] == f"{spec['global_source']}; head for vision transformers"
    assert shown["chunk"] == str(spec["chunk"]) == str(CHUNK)
    assert shown["size"] == str(RECIPES["deit"].size) == str(SIZE)
    assert shown["recipe"] == "deit"


def test_help_comes_in_groups_and_begins_with_what_a_user_needs(command: object) -> None:
    text = command("train", "--help").out  # type: ignore[operator]
    headings = ["Data:", "Labels:", "Student:", "Objective:", "Output:", "Schedule:", "Teacher:", "Crops:", "Machine:"]
    found = [text.index(f"\n{heading}") for heading in headings]
    assert found == sorted(found)
    assert "cskd-pipeline train --labels labels.zarr --student deit_s" in text[: found[0]]


def test_a_path_with_spaces_in_the_environment_is_one_path() -> None:
    found: list[tuple[str, ...]] = []

    @request_command(cskd.TrainRequest, "")
    def probe(request: cskd.TrainRequest) -> None:
        found.append(request.labels)

    for text in ("a b/labels.zarr", "a b/x.zarr\ny.zarr"):
        CliRunner().invoke(probe, [], env={"CSKD_LABELS": text}, auto_envvar_prefix="CSKD", catch_exceptions=False)
    assert found == [("a b/labels.zarr",), ("a b/x.zarr", "y.zarr")]
