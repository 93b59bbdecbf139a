"""A model card: a description of a trained student in the format of the Hugging Face Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from cskd_pipeline.publish.markdown import code, fenced, table


def model_card(
    *,
    architecture: str,
    load: str,
    settings: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    heads: Sequence[str],
) -> str:
    """The text of the card.

    Args:
        architecture: timm's name.
        load: Python that loads the folder.
        settings: of the run (`RunFolder.settings`); empty where they are not known.
        rows: metrics of its epochs.
        heads: those whose mean the model gives, where it has several.
    """
    known = settings.get("extra", {})
    front = {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "timm", "knowledge-distillation", "vision-transformer", "cskd"],
    }
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).rstrip(),
        "---",
        "",
        f"# {code(architecture)}, distilled",
        "",
    ]
    lines += ["A student of `cskd-pipeline`, with its weights under timm's names.", "", "## Use", ""]
    lines += fenced(load, "python")
    if heads:
        lines += ["", f"It gives the mean of its heads: {', '.join(map(code, heads))}."]
    facts = _facts(settings, known)
    if facts:
        lines += ["", "## Training", "", *table(["", ""], [[name, value] for name, value in facts.items()])]
    if settings.get("train"):
        lines += ["", "Settings:", "", *fenced(json.dumps(settings["train"], indent=1), "json")]
    scores = _scores(rows)
    if scores:
        lines += ["", "## Scores", "", "In per cent, by weights and head, after the epoch given:", ""]
        lines += table(["weights and head", "top-1", "epoch"], scores)
    lines += ["", "The terms of the training data and of the teacher's weights may also apply to this model.", ""]
    return "\n".join(lines)


def _facts(settings: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, str]:
    data, teacher, objective = known.get("data"), known.get("teacher"), settings.get("objective")
    facts = {}
    if data:
        facts["Data set"] = (
            f"{code(data.get('name'))}, split {code(data.get('split'))}, digest {code(data.get('digest'))}"
        )
    if known.get("classes"):
        facts["Classes"] = f"{len(known['classes']):,}, named in `config.json`"
    for name, found in (("Teacher", teacher), ("Second teacher", known.get("second_teacher"))):
        if found:
            facts[name] = f"{code(found.get('model'))} of timm, weights {code(found.get('weights'))}"
    if known.get("targets"):
        facts["Targets"] = {"stored": "stored labels", "live": "the teacher, live", "none": "true labels alone"}.get(
            known["targets"], code(known["targets"])
        )
    if objective:
        others = {name: value for name, value in objective.items() if name != "name"}
        facts["Objective"] = f"{code(objective.get('name'))}, {code(json.dumps(others))}"
    if known.get("recipe"):
        facts["Crops"] = code(json.dumps(known["recipe"]))
    if known.get("seeds"):
        facts["Augmentation seeds"] = f"{len(known['seeds']):,}"
    return facts


def _scores(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The last score of every head."""
    last = {
        name.removesuffix("/top1"): (value, row["epoch"])
        for row in rows
        for name, value in row.items()
        if name.endswith("/top1")
    }
    return [[code(name), f"{value:.2f}", str(epoch)] for name, (value, epoch) in last.items()]
