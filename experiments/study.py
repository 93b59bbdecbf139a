"""Run a study: every run of a study file on its sets, several students each, and append what came out as JSON lines.

    python experiments/study.py experiments/studies/methods.yaml --data DATA --work WORK --jobs 2
    python experiments/study.py experiments/studies/views.yaml --scale gpu --data DATA --work WORK

`sets.yaml` beside a study file names the image sets: their teachers, the stores of their labels, and the student and
its training at each scale (the sizes for a machine). A study file names sets, runs (options of `cskd-pipeline train`,
`train` for all of them), what each is done `at`, and repeats (seeds of initialisation).

Nothing is done twice: a run whose row is there is skipped, one that was interrupted goes on, and one that another study
did is taken from there, unless this one is `timed`. `--jobs` runs go side by side, each bound to its own processors.
`results.py` makes tables and plots from the rows alone.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib.metadata
import itertools
import json
import os
import queue
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import cskd_pipeline as cskd

HERE = Path(__file__).parent
PACKAGES = ("cskd-pipeline", "torch", "timm", "numpy")
OURS = ("-m", "cskd_pipeline_cli")
Options = dict[str, Any]
Row = dict[str, Any]


class Run(NamedTuple):
    """Which student a row is about."""

    scale: str
    set: str
    run: str
    at: str
    seed: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--scale", default="cpu", help="sizes of sets.yaml (%(default)s)")
    parser.add_argument("--data", type=Path, required=True, help="folder of the image sets, {data} in study files")
    parser.add_argument("--work", type=Path, required=True, help="folder for teachers, stores and runs")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the rows")
    parser.add_argument("--sets", default="", help="sets to do, separated by commas")
    parser.add_argument("--runs", default="", help="runs to do, separated by commas")
    parser.add_argument("--at", default="", help="what to do them at, separated by commas")
    parser.add_argument("--repeats", type=int, help="students a run, instead of the study file's")
    parser.add_argument("--epochs", type=int, help="instead of the study file's, to try it")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side (%(default)s)")
    parser.add_argument("--until", type=float, default=0, help="seconds after which no run is begun; 0 for no limit")
    Study(parser.parse_args()).do()


class Study:
    """A study file at a scale, on the processors of this machine."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        arguments.results.mkdir(parents=True, exist_ok=True)
        self.began = time.monotonic()
        self.arguments = arguments
        self.name, self.scale = arguments.study.stem, arguments.scale
        self.file = yaml.safe_load(arguments.study.read_text())
        self.known = yaml.safe_load((arguments.study.parent / "sets.yaml").read_text())
        self.processors = sorted(os.sched_getaffinity(0))
        self.free: queue.Queue[list[int]] = queue.Queue()
        share = max(1, len(self.processors) // arguments.jobs)
        for job in range(arguments.jobs):
            self.free.put(self.processors[job * share :][:share] or self.processors)

    def do(self) -> None:
        """Teachers and stores first, on all processors, then the runs that lack a row, side by side."""
        todo = self.todo()
        for run in todo:
            self.provide(run.set, self.options(run))
        with concurrent.futures.ThreadPoolExecutor(self.arguments.jobs) as pool:
            try:
                for future in concurrent.futures.as_completed([pool.submit(self.train, run) for run in todo]):
                    future.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def todo(self) -> list[Run]:
        """The runs that have no row, first students first; none of sets without sizes at this scale."""
        done = {Run(*(row[part] for part in Run._fields)) for row in read_rows(self.results(self.name))}
        asked = [text.split(",") for text in (self.arguments.sets, self.arguments.runs, self.arguments.at)]
        every = (
            Run(self.scale, set_name, name, at, seed)
            for seed in range(self.arguments.repeats or self.file["repeats"])
            for set_name, name in itertools.product(self.file["sets"], self.file["runs"])
            if self.scale in self.known["sets"][set_name]
            for at in self.settings(name)
        )
        return [
            run
            for run in every
            if run not in done and all(only == [""] or part in only for part, only in zip(run[1:4], asked, strict=True))
        ]

    def settings(self, name: str) -> dict[str, Options]:
        """What a run is done at: options by name."""
        found = self.file["runs"][name].get("at", self.file.get("at", {"": {}}))
        return {str(at): options for at, options in found.items()}

    def options(self, run: Run) -> Options:
        """Of `train`: the scale's and the set's, the study's, the run's, and those of what it is done at."""
        own = {**self.file.get("train", {}), **self.file["runs"][run.run], **self.settings(run.run)[run.at]}
        labels = [f"{{work}}/{store}.zarr" for store in own.pop("labels", ["labels"])]
        options: Options = {"labels": labels, **self.sized(run.set, "train"), **own}
        if options.pop("live", False):
            crops = self.sized(run.set, "precompute")
            teacher = self.known["sets"][run.set]["teacher"]
            options = {"seeds": crops["seeds"], **options, "labels": [], **teacher, "size": crops["size"]}
        if self.arguments.epochs:
            options |= {"epochs": self.arguments.epochs, "warmup-epochs": 0}
        return {name: value for name, value in options.items() if name != "at"} | {"seed": run.seed}

    def sized(self, set_name: str, command: str) -> Options:
        """Options of `train` or `precompute` on a set at this scale."""
        of_set = self.known["sets"][set_name]
        general = self.known["scales"][self.scale].get(command, {})
        return {"data": of_set["data"], **general, **of_set[self.scale].get(command, {})}

    def provide(self, set_name: str, options: Options) -> None:
        """Make the teachers and stores in {work} that these options name, where they are missing."""
        of_set = self.known["sets"][set_name]
        stores = {**of_set["stores"], **of_set[self.scale].get("stores", {})}
        for name in re.findall(r"\{work\}/([\w-]+)", str(options)):
            if made := stores.get(name):
                teacher = {} if "teacher" in made else of_set["teacher"]
                out, command, needed = f"{name}.zarr", "precompute", {**self.sized(set_name, "precompute"), **teacher}
            else:
                made = of_set[self.scale].get("teachers", {}).get(name)
                if made is None:
                    sys.exit(f"sets.yaml: {set_name} has neither a store nor, at scale {self.scale}, a teacher {name}")
                out, command, needed = name, "train", {"data": of_set["data"]}
            needed |= made
            self.provide(set_name, needed)
            self.make(set_name, out, command, needed)

    def make(self, set_name: str, name: str, command: str, options: Options) -> None:
        """A teacher or a store, and its row; the command goes on where it was interrupted."""
        out = self.place(set_name) / name
        out.parent.mkdir(parents=True, exist_ok=True)
        done = out.with_suffix(".done")
        if done.exists():
            return
        words = [*OURS, command, *self.words(set_name, options), "--out", str(out)]
        resumed = ["--resume"] if command == "train" else []
        begun = out.exists()
        seconds = self.execute([*words, *resumed], out.with_suffix(".log"), self.processors)
        done.touch()
        if any(
            (row["scale"], row["set"], row["made"]) == (self.scale, set_name, name)
            for row in read_rows(self.results("sets"))
        ):
            return
        row = {
            "scale": self.scale,
            "set": set_name,
            "made": name,
            "seconds": None if begun else seconds,  # of an interrupted one they would be the rest alone
            "processors": len(self.processors),
        }
        if command == "train":
            row["top1"] = top1(out)
        else:
            stored = cskd.inspect(out)
            row |= {
                "crops": stored.crops,
                "seeds": len(stored.complete),
                "bytes_per_crop": stored.bytes_per_crop,
                "teacher": stored.teacher_check and stored.teacher_check.to_json(),
            }
        self.append("sets", {**row, "command": self.shown(set_name, words), "versions": versions()})

    def train(self, run: Run) -> None:
        """A student, and its row."""
        if self.arguments.until and time.monotonic() - self.began > self.arguments.until:
            return
        place, options = self.place(run.set), self.options(run)
        program = options.pop("program", "")
        out = place / "-".join(filter(None, (run.run, run.at, str(run.seed)))).replace(" ", "-")
        words = [*([str(HERE / program)] if program else [*OURS, "train"]), *self.words(run.set, options)]
        command = self.shown(run.set, words)
        same = (row for path in self.arguments.results.glob("*.jsonl") for row in read_rows(path))
        row = next((row for row in same if row["command"] == command and "seed" in row), None)
        if row is None or self.file.get("timed"):
            words += ["--out", str(out), *([] if program else ["--resume"])]
            mine = self.free.get()
            try:
                self.execute(words, out.with_suffix(".log"), mine)
            finally:
                self.free.put(mine)
            epochs = read_rows(out / "metrics.jsonl")
            row = {
                "objective": options.get("objective", program.removesuffix(".py")),
                "top1": top1(out),
                "epochs": len(epochs),
                "train_s": sum(epoch["seconds"] for epoch in epochs),
                "processors": len(mine),
                "command": command,
                "versions": versions(),
            }
        self.append(self.name, {**row, **run._asdict()})

    def execute(self, words: Sequence[str], log: Path, processors: Sequence[int]) -> float:
        """Seconds of a Python program on these processors; its output goes to `log`."""
        began = time.monotonic()
        with log.open("a") as file:
            ended = subprocess.run(
                [sys.executable, *words],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": str(len(processors))},
                preexec_fn=lambda: os.sched_setaffinity(0, processors),
            )
        if ended.returncode:
            sys.exit(f"{log} ends with: {log.read_text().splitlines()[-1]}")
        return time.monotonic() - began

    def append(self, name: str, row: Row) -> None:
        """To the rows of this name; a line is written at once."""
        with self.results(name).open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row)[:160], f"{time.monotonic() - self.began:.0f} s", file=sys.stderr, flush=True)

    def results(self, name: str) -> Path:
        """The file of rows of a study, or of the sets."""
        return self.arguments.results / f"{name}.jsonl"

    def place(self, set_name: str) -> Path:
        """Folder of a set's teachers, stores and runs: {work} in study files."""
        return self.arguments.work / f"{set_name}-{self.scale}"

    def words(self, set_name: str, options: Options) -> list[str]:
        """Command-line words of options by name; a list gives one option several times."""
        places = {"data": self.arguments.data, "work": self.place(set_name)}
        return [
            word
            for name, values in options.items()
            for value in (values if isinstance(values, list) else [values])
            for word in (f"--{name}", str(value).format(**places))
        ]

    def shown(self, set_name: str, words: Sequence[str]) -> str:
        """A command without the places of this machine, DATA and WORK instead."""
        text = shlex.join(words).replace(shlex.join(OURS), "cskd-pipeline").replace(f"{HERE}/", "python experiments/")
        return text.replace(str(self.place(set_name)), "WORK").replace(str(self.arguments.data), "DATA")


def read_rows(path: Path) -> list[Row]:
    """Of a file of JSON lines; none if it is missing."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def top1(folder: Path) -> dict[str, float]:
    """Per cent by head, of the last epoch of a run folder."""
    scores = read_rows(folder / "metrics.jsonl")[-1]
    return {
        name.split("/")[1]: value
        for name, value in scores.items()
        if name.endswith("/top1") and name.startswith("model/")
    }


def versions() -> dict[str, str]:
    """Of the packages that a result depends on most."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


if __name__ == "__main__":
    main()
