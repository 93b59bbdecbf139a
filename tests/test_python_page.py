"""The code of docs/python.md runs as it stands there, with a toy teacher and a tiny student for the real ones."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from toys import STUDENT_ARGS, TEACHER, TEACHER_ARGS

import cskd_pipeline as cskd

PAGE = (Path(__file__).parents[1] / "docs/python.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)

SMALL = {
    'teacher="regnety_160"': "**TEACHER",
    'seeds="0:30"': 'seeds="0:2"',
    'student="deit_s"': 'student="deit_ti", **STUDENT',
    '"student": "deit_s"': '"student": "deit_ti", **STUDENT',
    'labels.student("deit_ti", objective)': 'labels.student("deit_ti", objective, args=STUDENT["student_args"])',
    'labels.student("deit_ti", mine)': 'labels.student("deit_ti", mine, args=STUDENT["student_args"])',
    "epochs=300, ": "epochs=2, ",
    "epochs=300)": "epochs=2, workers=0)",
    '"epochs": 300': '"epochs": 2',
    "range(300)": "range(2)",
    "batch_size=1024": "batch_size=16",
    '"batch_size": 1024': '"batch_size": 16',
    '"patch_size": 16, "embed_dim": 192': '"patch_size": 8, "embed_dim": 24',
}
"""What the test puts in the place of what the page says: each is found there."""


@pytest.fixture
def names(teacher_weights: Path) -> dict[str, Any]:
    """What the replacements name."""
    machine = {"workers": 0, "device": "cpu"}
    crops = {"size": 32, "recipe_args": {"group": 16}, "block": 32}
    teacher = {"teacher": TEACHER, "teacher_args": TEACHER_ARGS, "teacher_weights": teacher_weights, "chunk": 16}
    student = {"student_args": STUDENT_ARGS, "warmup_epochs": 0, **machine}
    return {"__name__": "__main__", "TEACHER": {**teacher, **crops, **machine}, "STUDENT": student}


def test_every_snippet_runs(toy: Path, tmp_path: Path, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DATA").symlink_to(toy)
    assert len(SNIPPETS) >= 10
    unused = set(SMALL)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for number, snippet in enumerate(SNIPPETS):
            for real, small in SMALL.items():
                unused -= {real} if real in snippet else set()
                snippet = snippet.replace(real, small)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Overwriting small_vit")
                exec(compile(snippet, f"docs/python.md, snippet {number + 1}", "exec"), names)
    assert unused == set()


def test_the_page_names_every_verb_and_every_request() -> None:
    missing = [name for name in cskd.__all__ if f"`{name}" not in PAGE and f"cskd.{name}" not in PAGE]
    assert missing == []
