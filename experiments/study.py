"""Run a study: every run of a study file on every set, several students each, and append what came out as JSON lines.

    python experiments/study.py experiments/studies/methods.yaml --scale cpu --data DATA --work WORK
    python experiments/study.py --table experiments/results/methods.jsonl

A study file names sets (images and teacher), runs (options of `cskd-pipeline train`), scales (sizes for a machine) and
repeats (seeds of initialisation). Labels are made once per set. A run whose row is there already is not repeated, one
that was interrupted goes on; `--jobs` runs go side by side, each bound to its own processors. Every row has the
scores by head, the seconds, the command and the versions that made it; tables come from the rows alone.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib.metadata
import itertools
import json
import os
import queue
import shlex
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import yaml

KEY = ("study", "scale", "set", "run", "seed")
PACKAGES = ("cskd-pipeline", "torch", "timm", "numpy")
HEADS = ("cls", "two_head", "three_head")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", type=Path)
    parser.add_argument("--scale", default="cpu")
    parser.add_argument("--data", type=Path, help="folder of the image sets, {data} in a study file")
    parser.add_argument("--work", type=Path, help="folder for stores and runs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", default="", help="runs to do, separated by commas")
    parser.add_argument("--repeats", type=int, help="students a run, instead of the study file's")
    parser.add_argument("--epochs", type=int, help="instead of the study file's, to try it")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--until", type=float, default=0, help="seconds after which no run is begun; 0 for no limit")
    parser.add_argument("--table", nargs="+", type=Path, metavar="JSONL")
    arguments = parser.parse_args()
    if arguments.table:
        print(table([json.loads(line) for path in arguments.table for line in path.read_text().splitlines()]))
    elif arguments.study and arguments.data and arguments.work:
        run_study(arguments)
    else:
        parser.error("give a study file, --data and --work, or --table")


def run_study(arguments: argparse.Namespace) -> None:
    began = time.monotonic()
    study = yaml.safe_load(arguments.study.read_text())
    scale = study["scales"][arguments.scale]
    if arguments.epochs:
        scale["train"] |= {"epochs": arguments.epochs, "warmup-epochs": 0}
    results = arguments.results / f"{study['name']}.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {tuple(row[key] for key in KEY) for row in rows}
    chosen = [name for name in study["runs"] if not arguments.only or name in arguments.only.split(",")]
    wanted = [
        (study["name"], arguments.scale, set_name, run, seed)
        for seed, set_name, run in itertools.product(
            range(arguments.repeats or study["repeats"]), study["sets"], chosen
        )
    ]
    for name in study["sets"]:
        place = arguments.work / f"{name}-{arguments.scale}"
        place.mkdir(parents=True, exist_ok=True)
        of_set = study["sets"][name]
        labels = {"data": of_set["data"], **of_set["teacher"], **scale["labels"], "out": place / "labels.zarr"}
        execute(["precompute", *words(labels, arguments.data)], place / "precompute.log", range(os.cpu_count() or 1))
    processors = sorted(os.sched_getaffinity(0))
    share = max(1, len(processors) // arguments.jobs)
    free: queue.Queue[list[int]] = queue.Queue()
    for job in range(arguments.jobs):
        free.put(processors[job * share : (job + 1) * share] or processors)

    def one(key: tuple[str, str, str, str, int]) -> dict | None:
        if arguments.until and time.monotonic() - began > arguments.until:
            return None
        _, _, set_name, run, seed = key
        place = arguments.work / f"{set_name}-{arguments.scale}"
        folder = place / f"{run.replace(' ', '-')}-{seed}"
        options = {"data": study["sets"][set_name]["data"], "labels": place / "labels.zarr"}
        options |= {**scale["train"], **study["runs"][run], "seed": seed, "out": folder}
        command = ["train", *words(options, arguments.data), "--resume"]
        mine = free.get()
        started = time.monotonic()
        try:
            execute(command, place / f"{folder.name}.log", mine)
        finally:
            free.put(mine)
        metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        last = metrics[-1]
        return {
            **dict(zip(KEY, key, strict=True)),
            "top1": {head: last[f"model/{head}/top1"] for head in HEADS if f"model/{head}/top1" in last},
            "epochs": len(metrics),
            "epoch_s": statistics.median(entry["seconds"] for entry in metrics),
            "wall_s": time.monotonic() - started,
            "command": shlex.join(["cskd-pipeline", *command])
            .replace(str(arguments.data), "DATA")
            .replace(str(arguments.work), "WORK"),
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        }

    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        todo = [pool.submit(one, key) for key in wanted if key not in done]
        for future in concurrent.futures.as_completed(todo):
            if (row := future.result()) is not None:
                rows.append(row)
                with results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(
                    row["set"],
                    row["run"],
                    row["seed"],
                    row["top1"],
                    f"{row['wall_s']:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
    print(table([row for row in rows if row["scale"] == arguments.scale]))


def words(options: dict, data: Path) -> list[str]:
    """Command-line words of options by name; a list gives one option several times."""
    return [
        word
        for name, values in options.items()
        for value in (values if isinstance(values, list) else [values])
        for word in (f"--{name}", str(value).format(data=data))
    ]


def execute(command: list[str], log: Path, processors: list[int] | range) -> None:
    """Run `cskd-pipeline` on these processors; its output goes to `log`."""
    with log.open("a") as file:
        file.write(shlex.join(["cskd-pipeline", *command]) + "\n")
        file.flush()
        ended = subprocess.run(
            [sys.executable, "-m", "cskd_pipeline_cli", *command],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(len(processors))},
            preexec_fn=lambda: os.sched_setaffinity(0, processors),
        )
    if ended.returncode:
        sys.exit(f"{log} ends with: {log.read_text().splitlines()[-1]}")


def table(rows: list[dict]) -> str:
    """Mean and spread of every run, and the mean of its paired differences to `supervised`, in Markdown."""
    groups: dict[tuple, dict[int, dict]] = defaultdict(dict)
    for row in rows:
        groups[row["scale"], row["set"], row["run"]][row["seed"]] = row["top1"]
    lines = ["| scale | set | run | students | " + " | ".join(HEADS) + " | best head - supervised |", "|" + "---|" * 8]
    for (scale, name, run), found in groups.items():
        base = groups.get((scale, name, "supervised"), {})
        cells = []
        for head in HEADS:
            scores = [top1[head] for top1 in found.values() if head in top1]
            spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
            cells.append(f"{statistics.mean(scores):.1f}{spread}" if scores else "")
        paired = [max(top1.values()) - max(base[seed].values()) for seed, top1 in found.items() if seed in base]
        spread = f" ± {statistics.stdev(paired):.1f}" if len(paired) > 1 else ""
        difference = f"{statistics.mean(paired):+.1f}{spread}" if paired and run != "supervised" else ""
        lines.append(f"| {scale} | {name} | {run} | {len(found)} | {' | '.join(cells)} | {difference} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
