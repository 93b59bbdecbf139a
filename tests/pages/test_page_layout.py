"""Pages in a real browser: nothing is cut off, nothing overlaps, on wide and narrow screens, in light and dark."""

from __future__ import annotations

import dataclasses
import html
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from test_run_findings import run
from test_store_findings import CHECK, HEADER, findings, sampled

from cskd_pipeline.pages.examples import Example
from cskd_pipeline.pages.page import page
from cskd_pipeline.pages.run_part import runs_part
from cskd_pipeline.pages.sampled import STEPS, Sampled
from cskd_pipeline.pages.store_part import store_part

SCRIPT = """<script>
const faults = [], box = node => node.getBoundingClientRect(), wide = document.documentElement.clientWidth;
document.querySelectorAll("details").forEach(node => node.open = true);
const both = (a, b, least) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
  && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > least;
const shown = node => box(node).width > 0 && box(node).height > 0;
const name = node => node.tagName + " " + node.textContent.trim().slice(0, 40);
if (document.documentElement.scrollWidth > wide) faults.push("the page scrolls sideways");
for (const node of document.body.querySelectorAll("*")) {
  if (!shown(node) || node.closest("title")) continue;
  if (box(node).right > wide + 1 || box(node).left < -1) faults.push("beyond the screen: " + name(node));
  const cut = node.clientWidth && node.scrollWidth > node.clientWidth + 1;
  if (!node.closest("svg") && cut) faults.push("cut off: " + name(node));
}
for (const plot of document.querySelectorAll("svg")) {
  const texts = [...plot.querySelectorAll("text")].filter(shown), around = box(plot);
  texts.forEach((one, at) => {
    const a = box(one);
    const across = a.left < around.left - 1 || a.right > around.right + 1;
    if (across || a.top < around.top - 1 || a.bottom > around.bottom + 1)
      faults.push("beyond its plot: " + name(one));
    for (const other of texts.slice(at + 1)) {
      if (both(a, box(other), 2)) faults.push(name(one) + " on " + name(other));
    }
  });
}
const blocks = [...document.body.querySelectorAll("p, figure, table, dl, h1, h2, h3, pre, ul")].filter(shown);
blocks.forEach((one, at) => blocks.slice(at + 1).forEach(other => {
  if (one.contains(other) || other.contains(one)) return;
  if (both(box(one), box(other), 1)) faults.push(name(one) + " overlaps " + name(other));
}));
const style = getComputedStyle(document.body);
const found = {wide, faults: faults.slice(0, 10), paper: style.backgroundColor, ink: style.color};
parent.postMessage(JSON.stringify(found), "*");
</script>"""
FRAME = """<title></title><script>onmessage = event => document.title = event.data</script>
<iframe src="page.html" style="border: 0; width: {width}px; height: 2000px"></iframe>"""
"""A window cannot be as narrow as a phone, a frame can."""
PAPER = {"light": "rgb(253, 253, 252)", "dark": "rgb(23, 25, 28)"}


def crowded() -> str:
    """A store of many classes with long names and a fine grid, and runs with long names and many settings."""
    rng = np.random.default_rng(0)
    classes = [f"a class with quite a long name number {at}" for at in range(40)]
    header = {**HEADER, "grid": (7, 7), "data": {**HEADER["data"], "classes": 40}}  # type: ignore[dict-item]
    winners = rng.integers(0, 40, (len(STEPS), 400, 50))
    many = Sampled("hard", np.zeros(400, int), np.arange(400), winners, rng.integers(0, 40, 400), (7, 7), [])
    crops = [
        Example(f"key{at}", 0, at, b"", 224, at, at + 1, 0.6, winners[:3, at], rng.random((3, 50), np.float32), True)
        for at in range(3)
    ]
    store = findings(sampled=many, examples=crops, classes=classes, missing=("a" * 300,))
    seeds = [dataclasses.replace(store.summary.seeds[0], seed=seed, blocks=1 + seed % 2) for seed in range(20)]
    writers = [{"torch": "2.11.0+cu130 a very long version" * 4, "device": "cpu"}]
    summary = dataclasses.replace(store.summary, header=header, seeds=seeds, writers=writers, teacher_check=CHECK)
    store = dataclasses.replace(store, summary=summary)
    runs = [
        run(f"a-run-with-a-long-name-{at}", tops=[10.0 + at, 20.0 + at], lr=at / 10, notes={"command": "x" * 400})
        for at in range(7)
    ]
    small = store_part(findings(sampled=sampled(labels=[0, 1, 1, 1])))
    return page([store_part(store), small, runs_part(runs)], title="Labels and runs", plots=True)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400, 340])
def test_nothing_overlaps_or_is_cut_off(width: int, scheme: str, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    assert browser is not None, "a browser is needed: make browser"
    (tmp_path / "page.html").write_text(crowded().replace("</body>", f"{SCRIPT}</body>"))
    (tmp_path / "frame.html").write_text(FRAME.format(width=width))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--blink-settings=preferredColorScheme={int(scheme == 'light')}", "--virtual-time-budget=5000"]
    done = subprocess.run(
        [*command, "--dump-dom", f"file://{tmp_path / 'frame.html'}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = json.loads(html.unescape(done.stdout.partition("<title>")[2].partition("</title>")[0]))
    assert found["faults"] == []
    assert width - 20 <= found["wide"] <= width  # less a scroll bar
    assert found["paper"] == PAPER[scheme]
