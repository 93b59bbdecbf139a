"""Every request that is refused before work begins: exit code, one line that names what was found and what to do,
and not a byte written or lost.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import toy_image

USAGE, DATA, MISMATCH, RETRY = 2, 3, 4, 75


class Scene:
    """What a case is made of; every part is made when it is first asked for."""

    def __init__(self, fixture: Callable[[str], Any]) -> None:
        self._fixture = fixture
        self.tmp: Path = fixture("tmp_path")
        self.out = self.tmp / "new"

    def __getattr__(self, name: str) -> Any:
        return self._fixture(name)

    @functools.cached_property
    def stored(self) -> list[object]:
        """`train` from labels, but for `--out`."""
        return [*self.train, "--labels", self.store]

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.tmp / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def folder(self, name: str, *files: str) -> Path:
        path = self.tmp / name
        path.mkdir()
        for file in files:
            (path / file).write_text("kept")
        return path

    def folder_of(self, **files: str) -> Path:
        path = self.folder("given")
        for name, content in files.items():
            (path / name).write_text(content)
        return path

    @functools.cached_property
    def checkpoint(self) -> Path:
        """A checkpoint with its weights in an entry."""
        path = self.tmp / "last.pth"
        torch.save({"state_dict": {"weight": torch.ones(1)}}, path)
        return path

    def data(self, *, classes: int = 3, label_of_first: str | None = None, shards: int = 2) -> Path:
        """A copy of the toy data with something changed."""
        path = self.folder("data")
        for number in range(shards):
            shutil.copy(self.toy / f"train-{number}.tar", path)
        shutil.copy(self.toy / "test-0.tar", path)
        (path / "classes.txt").write_text("".join(f"class {number}\n" for number in range(classes)))
        if label_of_first is not None:
            overwrite_member(path / "train-0.tar", "img00000.cls", label_of_first.encode())
        return path

    def renamed(self, classes: str) -> Path:
        """A copy of the toy data whose class list is another."""
        path = self.data()
        (path / "classes.txt").write_text(classes)
        return path

    def named_tars(self, label: bytes, *, listed: str) -> Path:
        """A copy of the toy data with a name for a label, and another class list or none."""
        path = self.data(label_of_first=label.decode())
        (path / "classes.txt").unlink()
        if listed:
            (path / "classes.txt").write_text(listed)
        return path

    def class_folders(self, listed: str) -> Path:
        """Folders ant and bee with an image each, and a class list."""
        path = self.folder("data", "classes.txt")
        for name in ("ant", "bee"):
            (path / "train" / name).mkdir(parents=True)
            (path / "train" / name / "0.jpg").write_bytes(toy_image(0))
        (path / "classes.txt").write_text(listed)
        return path

    def flat(self, listed: str | None) -> Path:
        """Three images in train/, a class list, and a list of them or none."""
        path = self.folder("data", "classes.txt")
        (path / "train").mkdir()
        for number in range(3):
            (path / "train" / f"{number}.jpg").write_bytes(toy_image(number))
        (path / "classes.txt").write_text("a\nb\nc\n")
        if listed is not None:
            (path / "train.txt").write_text(listed)
        return path

    def weights(self, model: str, *, classes: int = 3, **args: Any) -> Path:
        import timm
        from safetensors.torch import save_file

        path = self.tmp / "weights.safetensors"
        with torch.random.fork_rng(devices=[]):
            save_file(timm.create_model(model, num_classes=classes, **args).state_dict(), path)
        return path

    def edited_store(self, **attributes: Any) -> Path:
        root = self.store / "zarr.json"
        group = json.loads(root.read_text())
        group["attributes"] |= attributes
        root.write_text(json.dumps(group))
        return Path(self.store)

    def store_of_teacher(self, **changed: Any) -> Path:
        teacher = json.loads((self.store / "zarr.json").read_text())["attributes"]["teacher"]
        return self.edited_store(teacher={**teacher, **changed})

    def store_without(self, file: str) -> Path:
        (self.store / file).unlink()
        return Path(self.store)

    def store_with(self, file: str, text: str) -> Path:
        (self.store / file).write_text(text)
        return Path(self.store)

    def run_with(self, name: str, content: bytes) -> Path:
        (self.run_folder / name).write_bytes(content)
        return Path(self.run_folder)

    def config(self, text: str) -> list[object]:
        return ["--config", self.file("config.yaml", text)]


def overwrite_member(archive: Path, name: str, content: bytes) -> None:
    """Change the first bytes of a member in place."""
    with tarfile.open(archive) as opened:
        offset = opened.getmember(name).offset_data
    with archive.open("r+b") as file:
        file.seek(offset)
        file.write(content)


@dataclasses.dataclass(frozen=True)
class Case:
    """A request, its exit code and what the line must say."""

    request: Callable[[Scene], list[object]]
    code: int
    says: tuple[str, ...]
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)


def case(code: int, *says: str, env: Mapping[str, str] | None = None) -> Callable[[Callable[[Scene], Any]], Case]:
    return lambda request: Case(request, code, says, env or {})


def precompute(*words: object) -> Callable[[Scene], list[object]]:
    return lambda s: [*s.precompute, "--out", s.out, *words]


def train(*words: object) -> Callable[[Scene], list[object]]:
    return lambda s: [*s.train, "--size", "32", "--out", s.out, *words]


def stored(*words: object) -> Callable[[Scene], list[object]]:
    return lambda s: [*s.stored, "--out", s.out, *words]


CASES: dict[str, Case] = {
    # --- names
    "teacher: unknown": case(USAGE, "'regnety_16'", "did you mean", "regnety_160")(
        precompute("--teacher", "regnety_16")
    ),
    "teacher: unknown tag": case(USAGE, "regnety_160.deit", "did you mean", "regnety_160.deit_in1k")(
        precompute("--teacher", "regnety_160.deit")
    ),
    "teacher: none": case(USAGE, "no teacher", "--teacher")(lambda s: ["precompute", "--data", s.toy, "--out", s.out]),
    "student: unknown": case(USAGE, "'deit_t'", "did you mean", "deit_ti")(train("--student", "deit_t")),
    "objective: unknown": case(USAGE, "'cskdd'", "did you mean 'cskd'", "supervised")(stored("--objective", "cskdd")),
    "preset: unknown": case(USAGE, "'cskd-m'", "did you mean", "cskd-s")(train("--preset", "cskd-m")),
    "optimizer: unknown": case(USAGE, "'adamv'", "did you mean", "adamw")(train("--optimizer", "adamv")),
    "recipe: unknown": case(USAGE, "'diet'", "did you mean 'deit'")(precompute("--recipe", "diet")),
    "command: unknown": case(USAGE, "precompte")(lambda s: ["precompte"]),
    "option: unknown": case(USAGE, "--teachr", "--teacher")(precompute("--teachr", "x")),
    # --- weights
    "weights: missing": case(DATA, "nowhere.pth", "does not exist", "--teacher-weights")(
        precompute("--teacher-weights", "nowhere.pth")
    ),
    "weights: garbage safetensors": case(DATA, "bad.safetensors", "damaged, or is no file of weights")(
        lambda s: [*s.precompute, "--out", s.out, "--teacher-weights", s.file("bad.safetensors", "garbage")]
    ),
    "weights: garbage pickle": case(DATA, "bad.pth", "damaged")(
        lambda s: [*s.precompute, "--out", s.out, "--teacher-weights", s.file("bad.pth", "garbage")]
    ),
    "weights: of another model": case(DATA, "do not fit ResNet", "missing conv1")(
        lambda s: [*s.precompute, "--out", s.out, "--teacher-weights", s.weights("test_efficientnet")]
    ),
    "weights: of other classes": case(MISMATCH, "has 5 outputs, the data has 3 classes", "--teacher-classes")(
        lambda s: [*s.precompute, "--out", s.out, "--teacher-weights", s.weights("test_resnet", classes=5)]
    ),
    "weights: of a student, missing": case(DATA, "nowhere.pth", "--student-weights")(
        train("--student-weights", "nowhere.pth")
    ),
    "teacher: refuses its arguments": case(USAGE, "test_resnet", "nonsense=1")(
        precompute("--teacher-arg", "nonsense=1")
    ),
    "teacher: a ViT for other sizes": case(USAGE, "vit_tiny", "32 x 32", "choose another")(
        lambda s: [
            *["precompute", "--data", s.toy, "--out", s.out, "--teacher", "vit_tiny_patch16_224", "--size", "32"],
            *["--teacher-arg", "depth=1", "--teacher-weights", s.weights("vit_tiny_patch16_224", depth=1)],
        ]
    ),
    "teacher: chunk is odd": case(USAGE, "chunk", "even", "15")(precompute("--chunk", "15")),
    "teacher: mean of no name": case(USAGE, "--teacher-mean", "'imagnet'", "did you mean 'imagenet'")(
        precompute("--teacher-mean", "imagnet", "--teacher-std", "imagenet")
    ),
    "teacher: mean for 0..255": case(USAGE, "--teacher-mean", "'123.7,116.3,103.5'", "divide values for 0..255")(
        precompute("--teacher-mean", "123.7,116.3,103.5", "--teacher-std", "1")
    ),
    "teacher: std of two channels": case(USAGE, "--teacher-std", "'0.5,0.5'", "three")(
        precompute("--teacher-mean", "0.5", "--teacher-std", "0.5,0.5")
    ),
    "teacher: std is 0": case(USAGE, "--teacher-std", "above 0", "'0'")(
        precompute("--teacher-mean", "0.5", "--teacher-std", "0")
    ),
    "teacher: entry without weights": case(USAGE, "--teacher-entry is given without --teacher-weights")(
        lambda s: ["precompute", "--data", s.toy, "--teacher", "test_resnet", "--teacher-entry", "ema", "--out", s.out]
    ),
    "teacher: entry that is not there": case(DATA, "has no entry 'ema'", "--teacher-entry", "one of state_dict")(
        lambda s: precompute("--teacher-entry", "ema", "--teacher-weights", s.checkpoint)(s)
    ),
    "teacher: no such folder": case(DATA, "local-dir:/nowhere", "there is no folder")(
        precompute("--teacher", "local-dir:/nowhere")
    ),
    "student: entry without weights": case(USAGE, "--student-entry", "without --student-weights")(
        stored("--student-entry", "ema")
    ),
    "student: a folder for a name": case(USAGE, "named by its architecture", "--student-weights")(
        stored("--student", "local-dir:mine")
    ),
    "import: no such module": case(USAGE, "--import no_such_module fails", "No module named")(
        precompute("--import", "no_such_module")
    ),
    "plan: another store": case(MISMATCH, "size")(
        lambda s: ["plan", *s.precompute[1:], "--out", s.store, "--size", "48"]
    ),
    "plan: no seconds": case(USAGE, "--seconds", "0")(lambda s: ["plan", *s.precompute[1:], "--seconds", "0"]),
    "status: too often": case(USAGE, "--every", "0.01")(lambda s: ["status", s.store, "--watch", "--every", "0.01"]),
    "report: neither store nor run": case(DATA, "is neither a label store nor a run folder")(
        lambda s: ["report", s.folder("other", "kept.txt"), "--out", s.out]
    ),
    "report: missing": case(DATA, "no label store at")(lambda s: ["report", s.tmp / "nowhere", "--out", s.out]),
    "report: newer format": case(MISMATCH, "upgrade")(
        lambda s: ["report", s.edited_store(format_version=9), "--out", s.out]
    ),
    "report: onto a folder": case(USAGE, "--out", "is a folder", "page.html")(
        lambda s: ["report", s.store, "--out", s.folder("pages", "kept.txt")]
    ),
    "report: into a folder that is not there": case(USAGE, "--out", "does not exist")(
        lambda s: ["report", s.store, "--out", s.tmp / "nowhere" / "page.html"]
    ),
    "report: other images": case(MISMATCH, "samples 110", "samples 55")(
        lambda s: ["report", s.store, "--data", s.data(shards=1), "--out", s.out]
    ),
    "report: a run that cannot be read": case(DATA, "cannot be read", "damaged")(
        lambda s: ["report", s.folder_of(**{"config.json": "{broken"}), "--out", s.out]
    ),
    "export: onto a folder with files": case(USAGE, "is no empty folder")(
        lambda s: ["export", s.run_folder, s.folder("mine", "kept.txt"), "--hub"]
    ),
    "teacher: mean alone": case(USAGE, "--teacher-mean", "--teacher-std", "give both")(
        precompute("--teacher-mean", "clip")
    ),
    "teacher: mean without one": case(USAGE, "--teacher-mean", "without --teacher")(train("--teacher-mean", "clip")),
    "second teacher: mean without one": case(USAGE, "--second-teacher-mean", "without --second-teacher")(
        train("--teacher", "test_resnet", "--second-teacher-mean", "clip")
    ),
    "teacher: settings without one": case(USAGE, "--teacher-arg", "without --teacher")(train("--teacher-arg", "a=1")),
    # --- data
    "data: none": case(USAGE, "--data", "--labels")(lambda s: ["train", "--out", s.out]),
    "data: empty text": case(USAGE, "empty", "give")(train("--data", "")),
    "data: unknown name": case(USAGE, "'imagenete'", "did you mean 'imagenette'", "cifar10")(
        train("--data", "imagenete")
    ),
    "data: missing folder": case(USAGE, "no-such-folder", "no folder")(train("--data", "no-such-folder/images")),
    "data: missing manifest": case(USAGE, "nowhere.yaml", "cannot be read")(train("--data", "nowhere.yaml")),
    "data: known, place not given": case(USAGE, "imagenette", "CSKD_DATA_ROOT")(train("--data", "imagenette")),
    "data: known, not there": case(DATA, "imagenette", "was not found", "How to get it")(
        lambda s: [*s.train, "--out", s.out, "--data", "imagenette", "--data-root", s.folder("empty")]
    ),
    "data: empty folder": case(DATA, "holds no data set", "expected train/")(
        lambda s: [*s.train, "--out", s.out, "--data", s.folder("empty")]
    ),
    "data: no such split": case(USAGE, "no split 'trian'", "train, test")(train("--split", "trian")),
    "data: no such evaluation split": case(USAGE, "no split 'val'", "train, test")(train("--eval-split", "val")),
    "data: garbage": case(DATA, "train-0.tar", "not an intact tar file", "copy it again")(
        lambda s: [*s.train, "--out", s.out, "--data", s.file("train-0.tar", b"garbage" * 1000)]
    ),
    "data: cut short": case(DATA, "train-0.tar", "copy it again")(
        lambda s: [
            *[*s.train, "--out", s.out, "--data"],
            s.file("train-0.tar", (s.toy / "train-0.tar").read_bytes()[:30000]),
        ]
    ),
    "data: unreadable": case(DATA, "train-0.tar", "cannot be read")(
        lambda s: [*s.train, "--out", s.out, "--data", (s.tmp / "train-0.tar").mkdir() or s.tmp / "*.tar"]
    ),
    "data: labels by name without a list": case(DATA, "img00000.cls is 'a'", "classes.txt")(
        lambda s: [*s.train, "--out", s.out, "--data", s.named_tars(b"a", listed="")]
    ),
    "data: labels by unknown names": case(DATA, "img00000.cls is 'd'", "1 labels are not in", "classes.txt: 'd'")(
        lambda s: [*s.train, "--out", s.out, "--data", s.named_tars(b"d", listed="a\nb\nc\n")]
    ),
    "data: labels by ambiguous names": case(DATA, "'a' (lines 1, 2)", "name of its own")(
        lambda s: [*s.train, "--out", s.out, "--data", s.named_tars(b"a", listed="a\tn1\na\tn2\nc\n")]
    ),
    "data: class folders that a list lacks": case(DATA, "1 class folders are not in", "classes.txt: 'bee'", "correct")(
        lambda s: [*s.train, "--out", s.out, "--data", s.class_folders("ant\nbe\n")]
    ),
    "data: parquet": case(USAGE, "one by one", "cskd-pipeline pack --data", "--out FOLDER")(
        lambda s: [*s.train, "--out", s.out, "--data", s.folder("hub", "train-0.parquet")]
    ),
    "data: images in one folder": case(DATA, "holds no class folder", "train.txt", "FILE LABEL")(
        lambda s: [*s.train, "--out", s.out, "--data", s.flat(None)]
    ),
    "data: a list of other files": case(DATA, "line 1 names 'x.jpg'", "is in none of", "FILE LABEL")(
        lambda s: [*s.train, "--out", s.out, "--data", s.flat("x.jpg 0\n")]
    ),
    "data: a list with a label too large": case(DATA, "line 2 has label 3", "3 classes", "from 0 to 2")(
        lambda s: [*s.train, "--out", s.out, "--data", s.flat("0.jpg 0\n1.jpg 3\n")]
    ),
    "pack: no parquet": case(DATA, "is no parquet file", "git lfs pull")(
        lambda s: ["pack", "--data", s.folder("hub", "train-0.parquet"), "--out", s.out]
    ),
    "pack: no such split": case(USAGE, "no split 'trian'", "train, test")(
        lambda s: ["pack", "--data", s.toy, "--split", "trian", "--out", s.out]
    ),
    "pack: another data set": case(USAGE, "other classes", "another folder")(
        lambda s: ["pack", "--data", s.toy, "--out", s.data(classes=4)]
    ),
    "pack: cannot be written": case(RETRY, "/proc/tars")(lambda s: ["pack", "--data", s.toy, "--out", "/proc/tars"]),
    # --- labels and request
    "labels: of more data": case(MISMATCH, "samples 110", "has samples 55", "use the data")(
        lambda s: [*s.stored, "--out", s.out, "--data", s.data(shards=1)]
    ),
    "labels: of other data": case(MISMATCH, "digest", "use the data")(
        lambda s: [*s.stored, "--out", s.out, "--data", s.data(label_of_first="2")]
    ),
    "labels: of other classes": case(MISMATCH, "classes 3", "has classes 4", "use the data")(
        lambda s: [*s.stored, "--out", s.out, "--data", s.data(classes=4)]
    ),
    "labels: missing": case(DATA, "no label store at", "precompute")(
        lambda s: [*s.train, "--out", s.out, "--labels", "nowhere.zarr"]
    ),
    "labels: a file": case(DATA, "not a label store")(
        lambda s: [*s.train, "--out", s.out, "--labels", s.file("labels.zarr", "text")]
    ),
    "labels: another folder": case(DATA, "not a label store")(
        lambda s: [*s.train, "--out", s.out, "--labels", s.folder("other", "file")]
    ),
    "labels: newer format": case(MISMATCH, "format 2", "reads up to 1", "upgrade")(
        lambda s: [*s.train, "--out", s.out, "--labels", s.edited_store(format_version=2)]
    ),
    "labels: damaged attributes": case(DATA, "attributes", "damaged", "repair")(
        lambda s: [*s.train, "--out", s.out, "--labels", s.edited_store(data={})]
    ),
    "labels: damaged normalisation": case(DATA, "attributes", "damaged", "a teacher's mean", "found 5")(
        lambda s: ["verify", s.store_of_teacher(mean=5), "--data", s.toy]
    ),
    "labels: seed incomplete": case(DATA, "seed 1", "3 of 4 blocks", "--seeds 1", "complete seeds 0")(
        lambda s: [
            *[*s.train, "--out", s.out, "--seeds", "0:2"],
            *["--labels", s.store_without("seed-000001/commits/000002.json")],
        ]
    ),
    "labels: seed never computed": case(DATA, "seed 7", "0 of 4 blocks", "--seeds 7", "complete seeds 0, 1")(
        stored("--seeds", "7")
    ),
    "labels: without soft targets": case(MISMATCH, "no soft targets", "it has hard", "--targets")(
        lambda s: [
            *[*s.train, "--labels", s.hard_store, "--out", s.out],
            *["--objective", "cskd", "--objective-arg", "mode=soft"],
        ]
    ),
    "labels: scratch is a file": case(USAGE, "scratch")(lambda s: [*stored()(s), "--scratch", s.file("x", "kept")]),
    "labels: grid does not divide the patches": case(MISMATCH, "2 x 2 patch tokens", "4 x 4 grid", "patch size")(
        stored("--student-arg", "patch_size=16")
    ),
    "labels: crops of another size": case(MISMATCH, "32 x 32", "64 x 64", "img_size=32")(
        stored("--student-arg", "img_size=64")
    ),
    "labels: and a teacher": case(USAGE, "--labels and --teacher exclude")(stored("--teacher", "resnet18")),
    "labels: and a recipe": case(USAGE, "--recipe cannot be given with --labels")(stored("--recipe", "plain")),
    "labels: and a recipe's field": case(USAGE, "--recipe-arg cannot be given with --labels")(
        stored("--recipe-arg", "erase=0")
    ),
    "labels: and a size": case(USAGE, "--size cannot be given with --labels")(stored("--size", "32")),
    "labels: and a size from the environment": case(
        USAGE, "--size cannot be given with --labels", env={"CSKD_TRAIN_SIZE": "48"}
    )(stored()),
    "labels: none for distillation": case(USAGE, "cskd needs", "--labels", "--teacher")(train("--objective", "cskd")),
    # --- adding to a store
    **{
        f"store: other {what}": case(MISMATCH, "other settings", *says, "another --out")(
            lambda s, words=words: [*s.precompute, "--seeds", "2", "--out", s.store, *words]
        )
        for what, says, words in (
            ("recipe", ("recipe.erase is 0.25 in the store, 0.0",), ("--recipe-arg", "erase=0")),
            ("size", ("recipe.size is 32 in the store, 48",), ("--size", "48")),
            ("targets", ("encodings.full is absent in the store",), ("--targets", "full")),
            ("chunk", ("teacher.chunk is 16 in the store, 32",), ("--chunk", "32")),
            ("block", ("block is 32 in the store, 64",), ("--block", "64")),
        )
    },
    "store: other weights": case(MISMATCH, "teacher.weights is", "was asked for")(
        lambda s: [*s.precompute, "--out", s.store, "--teacher-weights", s.weights("test_resnet")]
    ),
    "store: other classes": case(MISMATCH, "data.classes is 3 in the store, 4 was asked for")(
        lambda s: [
            *[*s.precompute, "--out", s.store, "--data", s.data(classes=4)],
            *["--teacher-weights", s.weights("test_resnet", classes=4)],
        ]
    ),
    "store: newer format": case(MISMATCH, "format 2", "upgrade")(
        lambda s: [*s.precompute, "--out", s.edited_store(format_version=2)]
    ),
    "store: a file": case(DATA, "no label store", "another --out")(
        lambda s: [*s.precompute, "--out", s.file("labels", "kept")]
    ),
    "store: another folder": case(DATA, "no label store", "another --out")(
        lambda s: [*s.precompute, "--out", s.folder("other", "kept.txt")]
    ),
    "store: cannot be written": case(RETRY, "/proc/labels", "same command again")(
        lambda s: [*s.precompute, "--out", "/proc/labels"]
    ),
    "store: block too small": case(USAGE, "--block", "at least 2")(precompute("--block", "0")),
    "store: block cuts groups": case(USAGE, "40", "multiple of 16")(precompute("--block", "40")),
    **{
        f"seeds: {text!r}": case(USAGE, "--seeds", *says)(precompute("--seeds", text))
        for text, says in {
            "": ("malformed", "0:30"),
            "a": ("malformed at 'a'", "0:30"),
            "1,": ("malformed", "0:30"),
            "-1": ("malformed", "0:30"),
            "0:5:2": ("malformed", "0:30"),
            "3:1": ("no seed", "not included"),
            "3:3": ("no seed", "not included"),
            "0:999999999": ("999,999,999 seeds", "at most"),
        }.items()
    },
    "seeds: malformed for train": case(USAGE, "--seeds", "malformed")(stored("--seeds", "x")),
    # --- reading a store
    **{
        f"{command}: {what}": case(code, *says)(lambda s, command=command, path=path: [command, path(s)])
        for command in ("inspect", "status", "verify")
        for what, code, says, path in (
            ("missing", DATA, ("no label store at", "precompute"), lambda s: s.tmp / "nowhere"),
            ("a file", DATA, ("not a label store",), lambda s: s.file("store", "text")),
            ("newer format", MISMATCH, ("upgrade",), lambda s: s.edited_store(format_version=9)),
        )
    },
    "storage: unknown kind": case(USAGE, "ftp://host/x", "s3://bucket/path", "gs://bucket/path")(
        lambda s: [*s.precompute, "--out", "ftp://host/x"]
    ),
    "storage: no bucket in the address": case(USAGE, "s3://", "s3://bucket/path")(
        lambda s: [*s.train, "--out", s.out, "--labels", "s3://"]
    ),
    "storage: address without its second slash": case(USAGE, "s3:/bucket/x")(lambda s: ["verify", "s3:/bucket/x"]),
    "storage: empty path": case(USAGE, "path is empty")(lambda s: ["inspect", ""]),
    "storage: a file where the store should be": case(DATA, "not a label store")(
        lambda s: ["status", s.file("labels.zarr", "text")]
    ),
    "ranks: world size missing": case(USAGE, "--rank 1", "--world-size")(precompute("--rank", "1")),
    "ranks: rank missing": case(USAGE, "--world-size 4", "--rank")(precompute("--world-size", "4")),
    "ranks: too high": case(USAGE, "rank 4 of 4")(precompute("--rank", "4", "--world-size", "4")),
    "ranks: a launcher's nonsense": case(USAGE, "RANK is 'one'", "--rank", env={"RANK": "one", "WORLD_SIZE": "2"})(
        precompute()
    ),
    "repair: no store": case(DATA, "no label store", "does not exist")(lambda s: ["repair", s.out]),
    "repair: weights needed": case(MISMATCH, "1 blocks", "1 2", "--teacher-weights")(
        lambda s: ["repair", s.store_without("seed-000001/commits/000002.json")]
    ),
    "repair: data needed": case(DATA, "1 blocks", "1 2", "are not found", "--data", env={"CSKD_CACHE": "/dev/null/no"})(
        lambda s: ["repair", s.store_without("seed-000001/commits/000002.json")]
    ),
    "repair: weights missing": case(DATA, "nowhere.pth")(
        lambda s: ["repair", s.store, "--data", s.toy, "--teacher-weights", "nowhere.pth"]
    ),
    "verify: weights missing": case(DATA, "nowhere.pth", "--teacher-weights")(
        lambda s: ["verify", s.store, "--data", s.toy, "--teacher-weights", "nowhere.pth"]
    ),
    "verify: other weights": case(MISMATCH, "teacher.weights is")(
        lambda s: ["verify", s.store, "--data", s.toy, "--teacher-weights", s.weights("test_resnet"), "--workers", "0"]
    ),
    # --- run folders
    "run: exists": case(USAGE, "holds a run already", "--resume")(
        lambda s: [*s.train, "--labels", s.finished_store, "--out", s.run_folder]
    ),
    "run: another folder": case(USAGE, "not empty", "another folder")(
        lambda s: [*s.train, "--out", s.folder("other", "kept.txt")]
    ),
    "run: a file": case(USAGE, "is a file", "folder")(lambda s: [*s.train, "--out", s.file("run", "kept")]),
    "run: cannot be written": case(RETRY, "/proc/run")(lambda s: [*s.stored, "--out", "/proc/run"]),
    "resume: other settings": case(MISMATCH, "train.lr is 0.001 there and 0.01 here", "another --out")(
        lambda s: [*s.train, "--labels", s.finished_store, "--out", s.run_folder, "--resume", "--lr", "0.01"]
    ),
    "resume: other seeds": case(MISMATCH, "extra.seeds is [0, 1] there and [0] here")(
        lambda s: [*s.train, "--labels", s.finished_store, "--out", s.run_folder, "--resume", "--seeds", "0"]
    ),
    "resume: damaged checkpoint": case(DATA, "last.pt", "damaged")(
        lambda s: [*s.train, "--labels", s.finished_store, "--out", s.run_with("last.pt", b"x" * 99), "--resume"]
    ),
    "resume: damaged settings": case(DATA, "config.json", "damaged")(
        lambda s: [*s.train, "--labels", s.finished_store, "--out", s.run_with("config.json", b"{"), "--resume"]
    ),
    # --- settings
    "device: absent": case(USAGE, "cuda:99", "--device cpu")(train("--device", "cuda:99")),
    "device: unknown": case(USAGE, "'gpu'", "cpu, cuda")(train("--device", "gpu")),
    "device: of no use": case(USAGE, "'meta'", "cpu, cuda")(precompute("--device", "meta")),
    "workers: no number": case(USAGE, "--workers", "'many'", "auto")(train("--workers", "many")),
    "batch: odd": case(USAGE, "even", "15")(train("--batch-size", "15")),
    "batch: larger than the data": case(USAGE, "512", "110", "smaller batch")(train("--batch-size", "512")),
    "batch: does not divide": case(USAGE, "batch of 16", "3 accumulation steps", "multiple of 6")(
        train("--accumulation", "3")
    ),
    "epochs: fewer than warm-up": case(USAGE, "5 warm-up epochs", "give fewer")(train("--warmup-epochs", "5")),
    "epochs: none": case(USAGE, "epochs", "at least 1", "0")(train("--epochs", "0")),
    "epochs: no number": case(USAGE, "--epochs", "'many'", "integer")(train("--epochs", "many")),
    "lr: not positive": case(USAGE, "--lr", "greater than 0", "-1")(train("--lr", "-1")),
    "repeats: more than seeds": case(USAGE, "--repeats 3", "2 are available", "store more seeds")(
        stored("--repeats", "3")
    ),
    "canary: out of range": case(USAGE, "--canary", "at most 1", "2.0")(stored("--canary", "2")),
    "crop pct: too large": case(USAGE, "--crop-pct", "at most 1", "1.5")(train("--crop-pct", "1.5")),
    "crop pct: zero": case(USAGE, "--crop-pct", "greater than 0")(
        lambda s: ["eval", s.run_folder, "--data", s.toy, "--crop-pct", "0"]
    ),
    "student: refuses its arguments": case(USAGE, "timm cannot build", "nonsense=1")(
        train("--student-arg", "nonsense=1")
    ),
    "student: argument settled elsewhere": case(USAGE, "num_classes", "leave it out")(
        train("--student-arg", "num_classes=7")
    ),
    "student: a coarser map than the teacher's": case(MISMATCH, "1 x 1 positions do not pool", "another stride")(
        lambda s: [
            *["train", "--data", s.toy, "--labels", s.store, "--student", "resnet18", "--drop-path", "0"],
            *["--epochs", "1", "--warmup-epochs", "0", "--batch-size", "16", "--out", s.out],
        ]
    ),
    "key=value: no value": case(USAGE, "'img_size'", "KEY=VALUE")(train("--student-arg", "img_size")),
    "key=value: an empty value": case(USAGE, "--student-arg", "'global_pool=' has no value", "leave the option out")(
        train("--student-arg", "global_pool=")
    ),
    "student: no pooling": case(USAGE, "global_pool=''", "gives no class logits", "leave out --student-arg")(
        lambda s: [
            *["train", "--data", s.toy, "--student", "test_resnet", "--student-arg", "global_pool=''", "--size", "32"],
            *["--epochs", "1", "--warmup-epochs", "0", "--batch-size", "16", "--drop-path", "0", "--out", s.out],
        ]
    ),
    "key=value: no key": case(USAGE, "'=3'", "KEY=VALUE")(precompute("--recipe-arg", "=3")),
    "key=value: not YAML": case(USAGE, "'a=[1'", "cannot be read")(precompute("--teacher-arg", "a=[1")),
    "key=value: a mapping": case(USAGE, "dict", "number")(precompute("--teacher-arg", "a={b: 1}")),
    "recipe: unknown field": case(USAGE, "'earse'", "did you mean 'erase'")(precompute("--recipe-arg", "earse=0")),
    "recipe: out of bounds": case(USAGE, "erase", "probability", "2.0")(precompute("--recipe-arg", "erase=2")),
    "recipe: no number": case(USAGE, "erase", "number", "'much'")(precompute("--recipe-arg", "erase=much")),
    "objective: unknown setting": case(USAGE, "'alhpa'", "did you mean 'alpha'")(stored("--objective-arg", "alhpa=1")),
    "objective: out of bounds": case(USAGE, "alpha", "at most 1", "2")(stored("--objective-arg", "alpha=2")),
    "targets: unknown": case(USAGE, "--targets names 'hart'", "did you mean 'hard'")(
        precompute("--targets", "hart,soft")
    ),
    "targets: empty": case(USAGE, "--targets names ''")(precompute("--targets", "hard,")),
    "targets: twice": case(USAGE, "--targets names hard twice")(precompute("--targets", "hard,hard")),
    "targets: setting of no form": case(USAGE, "not of the form soft.k=8")(precompute("--target-arg", "k=3")),
    "targets: setting of an unknown one": case(USAGE, "'sofft'", "did you mean 'soft'")(
        precompute("--target-arg", "sofft.k=8")
    ),
    "targets: setting that is measured": case(USAGE, "no setting 'positions'")(
        precompute("--target-arg", "soft.positions=3")
    ),
    "targets: settings that do not fit": case(USAGE, "a palette of 20 has no room for global_k 48")(
        precompute("--target-arg", "soft.palette=20")
    ),
    "targets: palette of another kind": case(USAGE, "soft", "palette", "many")(
        precompute("--target-arg", "soft.palette=many")
    ),
    "targets: setting of what is not stored": case(USAGE, "full.dtype sets what", "add full")(
        precompute("--target-arg", "full.dtype=float32")
    ),
    "targets: value out of range": case(USAGE, "soft", "bits", "99")(precompute("--target-arg", "soft.bits=99")),
    "targets: value of another kind": case(USAGE, "soft", "k", "many")(precompute("--target-arg", "soft.k=many")),
    "targets: unknown setting": case(USAGE, "'type'", "did you mean 'dtype'")(
        precompute("--targets", "full", "--target-arg", "full.type=float32")
    ),
    # --- configuration files
    "config: missing": case(USAGE, "nowhere.yaml", "No such file")(train("--config", "nowhere.yaml")),
    "config: not YAML": case(USAGE, "config.yaml", "not YAML")(lambda s: [*s.train, *s.config("a: [1")]),
    "config: binary": case(USAGE, "config.yaml", "not YAML")(
        lambda s: [*s.train, "--config", s.file("config.yaml", b"\xff\xfe\x00")]
    ),
    "config: no mapping": case(USAGE, "config.yaml", "option: value")(lambda s: [*s.train, *s.config("- epochs")]),
    "config: unknown key": case(USAGE, "'epoch'", "did you mean 'epochs'")(lambda s: [*s.train, *s.config("epoch: 3")]),
    "config: no number": case(USAGE, "--epochs", "'many'")(
        lambda s: ["train", "--data", s.toy, "--out", s.out, *s.config("epochs: many")]
    ),
    "config: a list for one value": case(USAGE, "lr", "single value")(lambda s: [*s.train, *s.config("lr: [1, 2]")]),
    "config: pairs for one value": case(USAGE, "lr", "single value")(lambda s: [*s.train, *s.config("lr: {a: 1}")]),
    # --- evaluation and export
    "eval: missing": case(DATA, "nowhere", "run folder")(lambda s: ["eval", s.tmp / "nowhere", "--data", s.toy]),
    "eval: a folder without weights": case(DATA, "best.safetensors", "run folder")(
        lambda s: ["eval", s.folder("other", "kept.txt"), "--data", s.toy]
    ),
    "eval: no such weights": case(USAGE, "'bets'", "did you mean 'best'")(
        lambda s: ["eval", s.run_folder, "--data", s.toy, "--weights", "bets"]
    ),
    "eval: damaged": case(DATA, "best.safetensors", "safetensors")(
        lambda s: ["eval", s.run_with("best.safetensors", b"garbage"), "--data", s.toy]
    ),
    "eval: cut short": case(DATA, "best.safetensors", "safetensors")(
        lambda s: [
            "eval",
            s.run_with("best.safetensors", (s.run_folder / "best.safetensors").read_bytes()[:-8]),
            *["--data", s.toy],
        ]
    ),
    "eval: nobody knows the model": case(USAGE, "does not say which model", "--student")(
        lambda s: ["eval", s.weights("test_resnet"), "--data", s.toy]
    ),
    "eval: other classes": case(MISMATCH, "3 classes", "has 4")(
        lambda s: ["eval", s.run_folder, "--data", s.data(classes=4)]
    ),
    "eval: classes by other names": case(MISMATCH, "1 of 3 classes", "label 1 is 'bar' there and 'pub' in", "by name")(
        lambda s: ["eval", s.run_folder, "--data", s.renamed("disc\npub\nplain\n"), "--split", "train"]
    ),
    "eval: classes in another order": case(MISMATCH, "2 of 3 classes", "label 0 is 'disc' there and 'bar' in", "order")(
        lambda s: ["eval", s.run_folder, "--data", s.renamed("bar\ndisc\nplain\n"), "--split", "train"]
    ),
    "eval: of another size": case(MISMATCH, "32 x 32", "not of 64 x 64", "leave out --size")(
        lambda s: ["eval", s.run_folder, "--data", s.toy, "--size", "64"]
    ),
    "eval: no split to score": case(USAGE, "neither a val nor a test split", "--split")(
        lambda s: ["eval", s.run_folder, "--data", s.toy / "train-*.tar"]
    ),
    "export: bad suffix": case(USAGE, "'model.onnx'", ".safetensors or .pth")(
        lambda s: ["export", s.run_folder, s.tmp / "model.onnx"]
    ),
    "export: missing folder": case(USAGE, "nowhere", "make it first")(
        lambda s: ["export", s.run_folder, s.tmp / "nowhere" / "model.pth"]
    ),
    "export: missing run": case(DATA, "nowhere", "run folder")(
        lambda s: ["export", s.tmp / "nowhere", s.tmp / "model.pth"]
    ),
    "export: cannot be written": case(RETRY, "/proc/model.pth")(lambda s: ["export", s.run_folder, "/proc/model.pth"]),
    "export-labels: missing": case(DATA, "no label store at", "precompute")(
        lambda s: ["export-labels", s.tmp / "nowhere", s.out]
    ),
    "export-labels: into itself": case(USAGE, "is the store itself", "another OUT")(
        lambda s: ["export-labels", s.store, f"{s.store}/../labels.zarr"]
    ),
    "export-labels: inside itself": case(USAGE, "lies inside the store", "another OUT")(
        lambda s: ["export-labels", s.store, s.store / "copy"]
    ),
    "export-labels: no path": case(USAGE, "a path is empty")(lambda s: ["export-labels", s.store, ""]),
    "export-labels: another folder": case(DATA, "no label store", "another OUT")(
        lambda s: ["export-labels", s.store, s.folder("other", "kept.txt")]
    ),
    "export-labels: a file": case(DATA, "no label store", "another OUT")(
        lambda s: ["export-labels", s.store, s.file("labels", "kept")]
    ),
    "export-labels: other targets there": case(MISMATCH, "encodings.soft is absent in the store", "another OUT")(
        lambda s: ["export-labels", s.finished_store, shutil.copytree(s.hard_store, s.tmp / "hard.zarr")]
    ),
    "export-labels: cannot be written": case(RETRY, "/proc/labels", "same command again")(
        lambda s: ["export-labels", s.store, "/proc/labels"]
    ),
    "export-labels: seeds malformed": case(USAGE, "--seeds", "malformed")(
        lambda s: ["export-labels", s.store, s.out, "--seeds", "x"]
    ),
    "export-labels: seed incomplete": case(DATA, "seed 1", "3 of 4 blocks", "--seeds 1", "export 0")(
        lambda s: [
            *["export-labels", s.store_without("seed-000001/commits/000002.json"), s.out],
            *["--seeds", "0:2"],
        ]
    ),
    "export-labels: no seed complete": case(DATA, "no complete seed", "precompute")(
        lambda s: [
            "export-labels",
            s.store_without("seed-000001/commits/000002.json") and s.store_without("seed-000000/commits/000002.json"),
            s.out,
        ]
    ),
    "export-labels: targets unknown": case(USAGE, "--targets names 'sfot'", "did you mean 'soft'")(
        lambda s: ["export-labels", s.store, s.out, "--targets", "sfot"]
    ),
    "export-labels: targets not stored": case(MISMATCH, "no full targets", "it has hard, soft", "--targets")(
        lambda s: ["export-labels", s.store, s.out, "--targets", "hard,full"]
    ),
    "export-labels: licence empty": case(USAGE, "--license is empty")(
        lambda s: ["export-labels", s.store, s.out, "--license", " "]
    ),
    "export-labels: shard missing": case(DATA, "seed-000001/crop_crc/c/2", "it is missing", "repair")(
        lambda s: ["export-labels", s.store_without("seed-000001/crop_crc/c/2"), s.out]
    ),
    "index: another folder": case(USAGE, "is no index", "another folder")(
        lambda s: ["index", "--data", s.toy, "--out", s.folder("other", "kept.txt")]
    ),
    "index: cannot be written": case(RETRY, "/proc")(lambda s: ["index", "--data", s.toy, "--out", "/proc/index"]),
}


@pytest.mark.parametrize("name", CASES)
def test_is_refused_with_one_line_and_nothing_changes(
    name: str, request: pytest.FixtureRequest, command: Any, snapshot: Any
) -> None:
    expected = CASES[name]
    scene = Scene(request.getfixturevalue)
    words = expected.request(scene)
    before = snapshot(scene.tmp)
    outcome = command(*words, env=expected.env)
    assert outcome.code == expected.code, outcome.err
    for text in expected.says:
        assert text in outcome.error
    assert outcome.out == ""
    assert snapshot(scene.tmp) == before


def test_weights_out_of_reach_are_named_with_the_way_out(
    request: pytest.FixtureRequest, tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm.models._builder as builder

    def unreachable(*args: Any, **settings: Any) -> None:
        raise OSError("We couldn't connect to the hub\nsecond line")

    monkeypatch.setattr(builder, "load_state_dict_from_hf", unreachable)
    data = Scene(request.getfixturevalue).data(classes=1000)
    words = ["precompute", "--data", data, "--out", tmp_path / "new", "--size", "32", "--teacher", "test_resnet"]
    outcome = command(*words)
    assert outcome.code == DATA
    for text in ("test_resnet", "couldn't connect to the hub", "check the network", "--teacher-weights"):
        assert text in outcome.error
    assert "second line" not in outcome.error
    refused = command(*words, "--teacher-arg", "nonsense=1")
    assert refused.code == USAGE
    assert "nonsense=1" in refused.error
    assert not (tmp_path / "new").exists()


def test_pretrained_weights_of_other_classes_are_not_even_fetched(
    toy: Path, tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timm.create_model", None)
    words = ["precompute", "--data", toy, "--out", tmp_path / "new", "--size", "32", "--teacher", "test_resnet"]
    outcome = command(*words)
    assert outcome.code == MISMATCH
    for text in ("predicts 1000 classes", "the data has 3", "--teacher-weights"):
        assert text in outcome.error
    # timm would answer this wish with a classifier that was never trained.
    refused = command(*words, "--teacher-arg", "num_classes=3")
    assert refused.code == USAGE
    assert "num_classes is settled" in refused.error
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_may_not_be_read_is_no_bug(
    command: Any, finished_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "labels.zarr/seed-000000")

    monkeypatch.setattr("cskd_pipeline.store.summarise", refuse)
    outcome = command("inspect", finished_store)
    assert outcome.code == RETRY
    assert "labels.zarr/seed-000000 (Permission denied)" in outcome.error


def test_a_bug_is_not_dressed_up(command: Any, finished_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("cskd_pipeline.store.summarise", fail)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        command("inspect", finished_store)


def test_overwriting_a_member_keeps_the_archive_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("one")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    overwrite_member(path, "one", b"xy")
    with tarfile.open(path) as archive:
        content = archive.extractfile("one")
        assert content is not None
        assert content.read() == b"xyc"
