"""Does one store train better students? On real images: a teacher, its store, and a small ViT in several ways.

    python experiments/real_images.py cifar10-small DATA/cifar10-small --out runs/cifar10-small
    python experiments/real_images.py --table runs/*/results.json

Each run is a `cskd-pipeline` command; the commands and what came out go to OUT/results.json, runs that are finished
are not repeated, and `--table` prints the rows of docs/results.md. Sizes are for two processor cores; `--scale`
multiplies the epochs and the stored seeds where there is a GPU, `--seeds` repeats the students.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

from safetensors.torch import load_file

# Sizes of a set: side of crops and patches, the strides the teacher is trained and run at, epochs, stored seeds. A
# network loses accuracy where its stride is reduced after training; imagenette160 shows what such a teacher is worth.
SETS = {
    "cifar10-small": {
        "size": 32, "patch": 4, "trained_stride": 8, "stride": 8, "teacher_epochs": 10, "epochs": 10, "stored": 5,
    },
    "imagenette160": {
        "size": 64, "patch": 8, "trained_stride": 32, "stride": 16, "teacher_epochs": 25, "epochs": 25, "stored": 10,
    },
    "tiny_imagenet": {
        "size": 64, "patch": 8, "trained_stride": 16, "stride": 16, "teacher_epochs": 8, "epochs": 6, "stored": 3,
    },
}  # fmt: skip
TEACHER = "resnet10t"
METHODS = {
    "supervised": ["--objective", "supervised"],
    "deit": ["--objective", "deit"],
    "cskd": ["--objective", "cskd"],
    "deit soft": ["--objective", "deit", "--objective-arg", "mode=soft"],
    "cskd soft": ["--objective", "cskd", "--objective-arg", "mode=soft"],
    "cskd live": ["--objective", "cskd"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", nargs="?", choices=SETS)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--scale", type=int, default=1, help="times the epochs")
    parser.add_argument("--seeds", type=int, default=1, help="students per method")
    parser.add_argument("--methods", default=",".join(METHODS), help="which students, separated by commas")
    parser.add_argument("--workers", default="0")
    parser.add_argument("--table", nargs="+", type=Path, metavar="JSON")
    arguments = parser.parse_args()
    if arguments.table:
        print(table([json.loads(path.read_text()) for path in arguments.table]))
    elif arguments.set and arguments.data and arguments.out:
        run_set(arguments)
    else:
        parser.error("give a set, its folder and --out, or --table")


def run_set(arguments: argparse.Namespace) -> None:
    plan, out = SETS[arguments.set], arguments.out
    out.mkdir(parents=True, exist_ok=True)
    size, patch = plan["size"], plan["patch"]
    common = ["--data", str(arguments.data), "--workers", arguments.workers]
    optimiser = ["--batch-size", "128", "--warmup-epochs", "1", "--ema-decay", "0", "--drop-path", "0"]
    results = {"set": arguments.set, "teacher": TEACHER, "plan": plan, "scale": arguments.scale, "rows": []}

    teacher = out / "teacher"
    teacher_epochs = str(plan["teacher_epochs"] * arguments.scale)
    training = [*common, *optimiser, "--student", TEACHER, "--recipe", "plain", "--size", str(size)]
    training += ["--student-arg", f"output_stride={plan['trained_stride']}"]
    schedule = ["--epochs", teacher_epochs, "--lr", "2e-3", "--eval-every", "5"]
    execute(out, ["train", *training, *schedule, "--out", str(teacher)])
    results["rows"].append(row("teacher", 0, teacher, ["cls"], commands(out)[-1]))
    source = ["--teacher", TEACHER, "--teacher-weights", str(teacher / "last.safetensors")]
    source += ["--teacher-arg", f"output_stride={plan['stride']}"]
    store = out / "labels.zarr"
    stored = f"0:{plan['stored'] * arguments.scale}"
    began = time.monotonic()
    execute(out, ["precompute", *common, *source, "--size", str(size), "--seeds", stored, "--out", str(store)])
    if not (out / "precompute_s").exists():
        (out / "precompute_s").write_text(str(time.monotonic() - began))
    inspected = capture(["inspect", str(store), "--json"])
    results["store"] = {
        "bytes_per_crop": inspected["bytes_per_crop"],
        "crops": inspected["crops"],
        "grid": inspected["header"]["grid"],
        "precompute_s": float((out / "precompute_s").read_text()),
        "command": commands(out)[-1],
    }
    small = ["--student", "deit_ti"]
    for pair in (f"img_size={size}", f"patch_size={patch}", "embed_dim=96", "depth=4", "num_heads=3"):
        small += ["--student-arg", pair]
    epochs = ["--epochs", str(plan["epochs"] * arguments.scale)]
    for seed in range(arguments.seeds):
        for method in arguments.methods.split(","):
            objective = METHODS[method]
            targets = ["--labels", str(store)]
            if method.endswith("live"):
                targets = [*source, "--size", str(size), "--seeds", stored]
            folder = out / f"{method.replace(' ', '-')}-{seed}"
            training = [*common, *targets, *small, *objective, *optimiser, *epochs, "--lr", "1e-3", "--eval-every", "5"]
            execute(out, ["train", *training, "--seed", str(seed), "--out", str(folder)])
            heads = ["cls", "two_head"] + (["three_head"] if "cskd" in method else [])
            results["rows"].append(row(method, seed, folder, heads, commands(out)[-1]))
            if method == "cskd live":
                results["rows"][-1]["bit_identical_to_stored"] = same_weights(out / f"cskd-{seed}", folder)
            (out / "results.json").write_text(json.dumps(results, indent=1))
    print(table([results]))


def execute(out: Path, command: list[str]) -> None:
    """Run a `cskd-pipeline` command unless its result is there, and remember it."""
    line = shlex.join(["cskd-pipeline", *command])
    with (out / "commands.txt").open("a") as file:
        file.write(line + "\n")
    if command[0] == "train":
        command = [*command, "--resume"]  # begins a run that has not begun
    print(line, file=sys.stderr, flush=True)
    subprocess.run(["cskd-pipeline", *command], check=True)


def same_weights(first: Path, second: Path) -> bool:
    a, b = (load_file(folder / "last.safetensors") for folder in (first, second))
    return a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a)


def commands(out: Path) -> list[str]:
    return (out / "commands.txt").read_text().splitlines()


def capture(command: list[str]) -> dict:
    return json.loads(subprocess.run(["cskd-pipeline", *command], check=True, capture_output=True, text=True).stdout)


def row(method: str, seed: int, folder: Path, heads: list[str], command: str) -> dict:
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "method": method,
        "seed": seed,
        "top1": {head: metrics[-1][f"model/{head}/top1"] for head in heads},
        "epoch_s": statistics.median(entry["seconds"] for entry in metrics),
        "epochs": len(metrics),
        "command": command,
    }


def table(results: list[dict]) -> str:
    lines = ["| set | run | epochs | top-1 cls | two-head | three-head | s/epoch |", "|---|---|---|---|---|---|---|"]
    for result in results:
        methods = dict.fromkeys(entry["method"] for entry in result["rows"])
        for method in methods:
            rows = [entry for entry in result["rows"] if entry["method"] == method]

            def score(head: str, rows: list[dict] = rows) -> str:
                values = [entry["top1"][head] for entry in rows if head in entry["top1"]]
                if not values:
                    return ""
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                return f"{statistics.mean(values):.1f}{spread}"

            seconds = statistics.median(entry["epoch_s"] for entry in rows)
            lines.append(
                f"| {result['set']} | {method} | {rows[0]['epochs']} | {score('cls')} | {score('two_head')} | "
                f"{score('three_head')} | {seconds:.1f} |"
            )
    lines += [
        "",
        "| set | grid | bytes per crop: hard, soft, total | crops stored | precompute, s | live = stored weights |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        store = result["store"]
        same = [entry["bit_identical_to_stored"] for entry in result["rows"] if "bit_identical_to_stored" in entry]
        verdict = f"{sum(same)} of {len(same)} bit-identical"
        sizes = ", ".join(f"{store['bytes_per_crop'][field]:.1f}" for field in ("hard", "soft", "total"))
        lines.append(
            f"| {result['set']} | {store['grid'][0]} x {store['grid'][1]} | {sizes} | "
            f"{store['crops']:,} | {store['precompute_s']:.0f} | {verdict} |"
        )
    for result in results:
        lines += ["", f"### {result['set']}", "", "```"]
        teacher, *students = (entry["command"] for entry in result["rows"])
        lines += [shown(command, result["set"]) for command in (teacher, result["store"]["command"], *students)]
        lines += ["```"]
    return "\n".join(lines)


def shown(command: str, name: str) -> str:
    """The command with the data set's folder as DATA/NAME and without what only this script needs."""
    words = shlex.split(command)
    words[words.index("--data") + 1] = f"DATA/{name}"
    return shlex.join(words)


if __name__ == "__main__":
    main()
