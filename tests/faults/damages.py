"""Random damage to a finished store: each must be found by `verify`, and mended by `repair`, by command line."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from pathlib import Path

from click.testing import CliRunner
from cskd_pipeline_cli.main import main
from scene import Scene, content

KINDS = ("flip", "truncate", "delete", "swap")


@dataclasses.dataclass
class Damages:
    """What came out.

    Attributes:
        done: how often a store was damaged, by kind.
        undetected: damaged files that `verify` did not name.
        unrepaired: repairs after which the store was not what it had been, to the byte.
    """

    done: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    undetected: list[str] = dataclasses.field(default_factory=list)
    unrepaired: list[str] = dataclasses.field(default_factory=list)


def damage_and_repair(scene: Scene, store: Path, *, times: int, chance: random.Random) -> Damages:
    """Damage the store `times` times, one thing at a time, and have it found and mended."""
    found = Damages()
    whole = content(store)
    for number in range(times):
        kind = KINDS[number % len(KINDS)]
        files = _damage(store, whole, kind, chance)
        found.done[kind] += 1
        said = _verify(store)
        what = f"{kind} of {' and '.join(files)}"
        found.undetected += [f"{what}: {name}" for name in files if not _named(name, said)]
        mended = _run("repair", store, "--data", scene.data, "--teacher-weights", scene.weights, "--workers", "0")
        if mended[0] != 0 or content(store) != whole:
            found.unrepaired.append(f"{what}: {mended[1]}")
            for name in content(store).keys() - whole.keys():
                (store / name).unlink()
            for name, data in whole.items():
                (store / name).parent.mkdir(parents=True, exist_ok=True)
                (store / name).write_bytes(data)
    return found


def _damage(store: Path, whole: dict[str, bytes], kind: str, chance: random.Random) -> list[str]:
    """Do it; returns the names of the files that are not what they were."""
    names = sorted(whole)
    name = chance.choice(names)
    raw = whole[name]
    if kind == "flip":
        at = chance.randrange(len(raw))
        (store / name).write_bytes(raw[:at] + bytes([raw[at] ^ (1 << chance.randrange(8))]) + raw[at + 1 :])
    elif kind == "truncate":
        (store / name).write_bytes(raw[: chance.randrange(len(raw))])
    elif kind == "delete":
        (store / name).unlink()
    else:
        other = chance.choice([other for other in names if whole[other] != raw])
        (store / name).write_bytes(whole[other])
        (store / other).write_bytes(raw)
        return [name, other]
    return [name]


def _verify(store: Path) -> str:
    """What `verify` says if it finds something: "" if it finds all well."""
    code, said = _run("verify", store, "--json")
    if code == 0:
        return ""
    found = said.splitlines()[0]
    if found.startswith("{"):
        report = json.loads(found)
        found += "".join(f" missing:seed-{int(seed):06d}/commits/" for seed in report["incomplete"])
    return said + found


def _named(name: str, said: str) -> bool:
    """Whether a damaged file, or the block that it spoils, is named: one whose commit file is gone is missing."""
    if name in said:
        return True
    seed, _, rest = name.partition("/")
    if rest.startswith("commits/"):
        return f"missing:{seed}/commits/" in said
    # Of a block whose commit file is named nothing else can be said.
    block = re.search(r"/(\d+)(?:/|$)", rest)
    if block is not None and f"{seed}/commits/{int(block[1]):06d}.json" in said:
        return True
    return name != "zarr.json" and ("zarr.json is missing or damaged" in said or "attributes" in said)


def _run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout + result.stderr
