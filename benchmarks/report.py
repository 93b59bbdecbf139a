"""The tables of a run as Markdown, and the machine that it ran on."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from goals import Goal, judge

BASELINE = "topk10-fp16"

Row = dict[str, Any]


def replace_measured(page: str, text: str, *, mark: str = "measured") -> str:
    """The page with `text` between the two marks of this name."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"the page lacks the marks {begin} and {end}")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """What `publish` reads."""
    parser.add_argument("--json", type=Path, help="write a JSON object a row")
    parser.add_argument("--write", type=Path, help="put the table between the marks of this page")


def publish(rows: Sequence[Row], text: str, arguments: argparse.Namespace, *, mark: str, command: str, on: str) -> None:
    """Print the table; write the rows and the page's part of this mark where they were asked for.

    Args:
        rows: of the run.
        text: the table.
        arguments: of `add_output_options`.
        mark: of the page.
        command: what repeats the run, without this machine's paths.
        on: the machine.
    """
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(text)
    if arguments.write:
        said = f"```\n{command} --json FILE --write docs/benchmarks.md\n```\n\n{on}\n\n{text}"
        arguments.write.write_text(replace_measured(arguments.write.read_text(), said, mark=mark))


def command_line(script: str, arguments: argparse.Namespace, options: Sequence[str]) -> str:
    """The call with these options as they were given or by default, data sets by their names."""
    words = [f"python benchmarks/{script}.py"]
    for option in options:
        values = getattr(arguments, option)
        for value in values if isinstance(values, list) else [values]:
            words.append(f"--{option.replace('_', '-')} {shown(value) if option == 'data' else value}")
    return " ".join(words)


def shown(data: str) -> str:
    """`--data` without the place of its folder on this machine, for a shell."""
    path = Path(data)
    if "/" not in data:
        return data
    return shlex.quote(f"DATA/{path.parent.name}/{path.name}" if path.suffix == ".tar" else f"DATA/{path.name}")


def set_name(data: str) -> str:
    """The set's name: its folder, if it is one."""
    path = Path(data)
    return path.parent.name if path.suffix == ".tar" else path.name


def tables(rows: Sequence[Row], opening: Sequence[Row], *, command: str) -> str:
    """Everything that a run found."""
    first = [row for row in rows if row["agreement"] is not None or row["kl_global"] is not None]
    parts = [f"```\n{command}\n```", machine()]
    parts.append(f"### Goals\n\nThe worst value that this run found.\n\n{_goals(judge(rows, opening))}")
    parts += [f"### {name}\n\n{_comparison([row for row in first if row['set'] == name])}" for name in _sets(first)]
    parts.append(f"### Bytes by field\n\n{_fields([row for row in first if len(row['fields']) > 1])}")
    sizes = {row["records"] for row in rows}
    if len(sizes) > 1:
        grown = {row["set"] for row in rows if row["records"] == max(sizes)}
        parts.append(f"### Growth\n\n{_growth([row for row in rows if row['set'] in grown])}")
    if opening:
        parts.append(f"### Opening\n\n{_opening(opening)}")
    return "\n\n".join(parts)


def machine(*others: str, used: str = "one") -> str:
    """Processor, memory and versions, those of other packages too; `used`: how many processors the run kept busy."""
    versions = []
    for package in ("torch", "numpy", "zarr", "numcodecs", "numba", *others):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return (
        f"{_processor()}, {os.cpu_count()} processors of which the run used {used}, {memory:.0f} GiB of memory, "
        f"{platform.system()} {platform.release()}; Python {platform.python_version()}, {', '.join(versions)}."
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in facts.items()}
    model = named.get("model name", platform.machine())
    return f"{model} (family {named.get('cpu family', '?')}, model {named.get('model', '?')}, {platform.machine()})"


def _goals(goals: Sequence[Goal]) -> str:
    lines = ["| goal | measured | met |", "|---|---|---|"]
    return "\n".join(
        [*lines, *(f"| {goal.promise} | {goal.measured} | {'yes' if goal.met else 'no'} |" for goal in goals)]
    )


def _comparison(rows: Sequence[Row]) -> str:
    baseline = next((row for row in rows if row["encoding"] == BASELINE), None)

    def rated(row: Row, name: str) -> str:
        value = row[name]
        ratio = "" if value is None or baseline is None else f" ({_times(value / baseline[name])})"
        return "" if value is None else f"{value:,.0f}{ratio}"

    def compressed(row: Row) -> str:
        smaller = "" if baseline is None else f" ({_times(baseline['bytes_per_crop'] / row['bytes_per_crop'])})"
        return f"{row['bytes_per_crop']:,.1f}{smaller}"

    return markdown(
        rows,
        {
            "encoding": lambda row: row["encoding"],
            "records": lambda row: f"{row['records']:,}",
            "bytes per crop": compressed,
            "agreement": lambda row: _number(row["agreement"], ".6f"),
            "KL": lambda row: _number(row["kl"], ".4f"),
            "KL global": lambda row: _number(row["kl_global"], ".4f"),
            "encode, crops/s": lambda row: rated(row, "encode_crops_s"),
            "decode, crops/s": lambda row: rated(row, "decode_crops_s"),
            "gather, crops/s": lambda row: rated(row, "gather_crops_s"),
        },
    )


def _fields(rows: Sequence[Row]) -> str:
    return markdown(
        rows,
        {
            "set": lambda row: row["set"],
            "encoding": lambda row: row["encoding"],
            "bytes per crop": lambda row: ", ".join(f"{name} {value:,.2f}" for name, value in row["fields"].items()),
        },
    )


def _growth(rows: Sequence[Row]) -> str:
    return markdown(
        sorted(rows, key=lambda row: row["encoding"]),
        {
            "encoding": lambda row: row["encoding"],
            "records": lambda row: f"{row['records']:,}",
            "bytes per crop": lambda row: f"{row['bytes_per_crop']:,.1f}",
            "decode, crops/s": lambda row: f"{row['decode_crops_s']:,.0f}",
            "decode of 1.28 M crops, s": lambda row: f"{1_281_167 / row['decode_crops_s']:,.2f}",
            "gather, crops/s": lambda row: f"{row['gather_crops_s']:,.0f}",
        },
    )


def _opening(rows: Sequence[Row]) -> str:
    return markdown(
        rows,
        {
            "seeds": lambda row: f"{row['seeds']:,}",
            "samples": lambda row: f"{row['samples']:,}",
            "open, ms": lambda row: f"{row['open_ms']:.1f}",
            "memory taken by opening, MiB": lambda row: f"{row['open_mib']:.1f}",
            "memory of the process, MiB": lambda row: f"{row['resident_mib']:.0f}",
            "list the complete seeds, ms": lambda row: f"{row['seeds_ms']:.0f}",
            "check all files before training, ms": lambda row: f"{row['check_ms']:.0f}",
        },
    )


def markdown(rows: Iterable[Any], columns: Mapping[str, Callable[[Any], str]]) -> str:
    """A table with a line for every row."""
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(cell(row) for cell in columns.values())} |" for row in rows]
    return "\n".join(lines)


def _sets(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["set"] for row in rows))


def _number(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)


def _times(ratio: float) -> str:
    return f"{ratio:.2g} x" if ratio < 10 else f"{ratio:,.0f} x"
