"""Settings that several verbs share, in groups that their requests inherit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.progress import Watch, silent
from cskd_pipeline.settings import Named, Settings, setting

if TYPE_CHECKING:
    import torch

    from cskd_pipeline.crops.recipe import CropRecipe
    from cskd_pipeline.data import SampleIndex
    from cskd_pipeline.models.normalisation import Channels
    from cskd_pipeline.models.teacher.teacher import Teacher

SIZE, CHUNK = 224, 64
DATA_HELP = (
    "A known data set (imagenet-1k, imagenette, cifar10, shapes), a folder of images or of tar shards, a tar "
    "pattern, an address of tars (s3://bucket/path), a list of files and labels (.txt, .csv), a manifest file (.yaml), "
    "or an index."
)

DEFAULT_TARGETS = "hard,soft,truth"
TARGETS_HELP = (
    "What to store. hard: winning classes, exact for every schedule. soft: the likeliest classes' probabilities and "
    "the mass of the others. full: all logits, for few classes. truth: the true classes' probabilities. "
    "features.pooled: what the classifier takes. features.tokens: patch tokens of a vision transformer."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings(Settings):
    """Where the images are."""

    data: str | None = setting(
        None, DATA_HELP, group="data", metavar="DATA", shown="found by the digest that the labels or the run belong to"
    )
    data_root: str | None = setting(
        None,
        "Folder, or address of tars, that holds the known data set.",
        group="data",
        metavar="FOLDER",
        shown="$CSKD_DATA_ROOT",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsSettings(Settings):
    """Where the weights of a store's teacher are."""

    teacher_weights: Path | None = setting(
        None,
        "The teacher's weights: a file (.safetensors, .pth), a folder of timm's save_for_hf, or hf-hub:USER/NAME.",
        group="teacher",
        metavar="FILE",
        shown="timm's pretrained ones",
    )
    teacher_entry: str | None = setting(
        None,
        "Where in the file they are, such as state_dict or state_dict_ema.",
        group="teacher",
        metavar="NAME",
        shown="a moving average, if there is one",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherSettings(WeightsSettings):
    """Which teacher, and how it runs. What is None is as `load_teacher` has it by default."""

    teacher: str | None = setting(
        None,
        "A model of timm, local-dir:FOLDER or hf-hub:USER/NAME; regnety_160 is the published teacher.",
        group="teacher",
        metavar="MODEL",
    )
    teacher_args: Named = setting(
        {},
        "An argument for timm's constructor, such as output_stride=8; may be repeated.",
        group="teacher",
        option="teacher-arg",
    )
    teacher_mean: str | None = setting(
        None,
        "Mean that its input is normalised with: imagenet, inception, clip, none, or numbers in 0..1.",
        group="teacher",
        metavar="NAME|R,G,B",
        shown="timm's for the model",
    )
    teacher_std: str | None = setting(
        None,
        "Standard deviation, in the same forms; given with the mean.",
        group="teacher",
        metavar="NAME|R,G,B",
        shown="timm's for the model",
    )
    teacher_classes: str | None = setting(
        None,
        "What its outputs are called, where they are more than the data's classes or in another order: imagenet-1k, "
        "imagenet-21k, natural (folders as timm's reader sorts them), or a file whose line N names output N.",
        group="teacher",
        metavar="NAME|FILE",
        shown="the data's classes, in their order",
    )
    teacher_precision: Literal["fp32", "bf16", "fp16"] | None = setting(
        None, "Number format of its forward pass.", group="teacher", shown="fp32"
    )
    channels_last: bool = setting(False, "Run the teacher in channels-last memory format.", group="teacher")
    compile_teacher: bool = setting(False, "Run the teacher through torch.compile.", group="teacher")
    chunk: int | None = setting(
        None,
        "Crops per forward pass of the teacher, even; part of what the labels depend on.",
        group="teacher",
        shown=str(CHUNK),
    )
    global_source: Literal["mean", "head"] | None = setting(
        None,
        "Global targets: the mean of the dense logits (as published), or the teacher's own output.",
        group="teacher",
        shown="mean; head for vision transformers",
    )

    def require_teacher(self, *, option: str = "--teacher") -> None:
        """Raise UsageError unless timm knows the teacher and its normalisation is one, and DataError unless its weights
        exist.

        `option` is what it is given by.
        """
        from cskd_pipeline.models.hub_model import is_hub_name
        from cskd_pipeline.models.teacher.load import resolve_teacher

        if not self.teacher:
            raise UsageError("no teacher is given; name one with --teacher, such as regnety_160")
        resolve_teacher(self.teacher)
        self.normalised(option=option)
        if self.teacher_entry is not None and self.teacher_weights is None and not is_hub_name(self.teacher):
            raise UsageError(f"{option}-entry is given without {option}-weights, where it has no effect; leave it out")
        require_weights(f"{option}-weights", self.teacher_weights)

    def normalised(self, *, option: str = "--teacher") -> tuple[Channels, Channels] | None:
        """Mean and std of the teacher's input, None for timm's; UsageError if one is missing or malformed."""
        from cskd_pipeline.models.normalisation import parse_channels

        if self.teacher_mean is None and self.teacher_std is None:
            return None
        if self.teacher_mean is None or self.teacher_std is None:
            given, other = ("mean", "std") if self.teacher_std is None else ("std", "mean")
            raise UsageError(f"{option}-{given} is given without {option}-{other}; they belong together, give both")
        mean = parse_channels(self.teacher_mean, "mean", option=f"{option}-mean")
        return mean, parse_channels(self.teacher_std, "std", option=f"{option}-std")

    def load_teacher(
        self,
        index: SampleIndex,
        *,
        size: int,
        device: torch.device,
        option: str = "--teacher",
        normalised: tuple[Channels, Channels] | None = None,
        rows: tuple[int, ...] | None = None,
        watch: Watch = silent,
    ) -> Teacher:
        """The teacher, ready to run on crops of `size` pixels of these images.

        `normalised` is the mean and std of its input, and `rows` its outputs for the data's classes, where they are
        known otherwise than from these settings. `watch` is told about the weights. Errors as
        `models.teacher.load.load_teacher`, and as `models.teacher.classes.output_rows`.
        """
        from cskd_pipeline.data import class_forms
        from cskd_pipeline.models.teacher.classes import output_rows
        from cskd_pipeline.models.teacher.load import load_teacher

        self.require_teacher(option=option)
        assert self.teacher is not None
        outputs = None
        if self.teacher_classes is not None:
            rows, outputs = output_rows(self.teacher_classes, class_forms(index), option=f"{option}-classes")
        return load_teacher(
            self.teacher,
            classes=len(index.classes),
            rows=rows,
            outputs=outputs,
            size=size,
            device=device,
            weights=self.teacher_weights,
            entry=self.teacher_entry,
            args=self.teacher_args,
            normalised=normalised or self.normalised(option=option),
            option=option,
            precision=self.teacher_precision or "fp32",
            channels_last=self.channels_last,
            compile=self.compile_teacher,
            chunk=CHUNK if self.chunk is None else self.chunk,
            global_source=self.global_source,
            watch=watch,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoTeachersSettings(TeacherSettings):
    """Which teacher or two, and how they run."""

    second_teacher: str | None = setting(
        None,
        "A second model, for objectives with two teachers; it runs as the first does.",
        group="teacher",
        metavar="MODEL",
    )
    second_teacher_weights: Path | None = setting(
        None, "The second teacher's weights.", group="teacher", metavar="FILE", shown="timm's pretrained ones"
    )
    second_teacher_entry: str | None = setting(
        None, "Where in the file they are.", group="teacher", metavar="NAME", shown="a moving average"
    )
    second_teacher_args: Named = setting(
        {}, "An argument for its constructor; may be repeated.", group="teacher", option="second-teacher-arg"
    )
    second_teacher_mean: str | None = setting(
        None, "Mean of its input.", group="teacher", metavar="NAME|R,G,B", shown="timm's for the model"
    )
    second_teacher_std: str | None = setting(
        None, "Standard deviation of its input.", group="teacher", metavar="NAME|R,G,B", shown="timm's for the model"
    )

    second_teacher_classes: str | None = setting(
        None, "What its outputs are called.", group="teacher", metavar="NAME|FILE", shown="the data's classes"
    )

    def teachers(self) -> dict[str, TeacherSettings]:
        """The option that a teacher is given by -> the teacher, in their order."""
        given = {}
        if self.teacher:
            given["--teacher"] = first = self.part(TeacherSettings)
            if self.second_teacher:
                given["--second-teacher"] = dataclasses.replace(
                    first,
                    teacher=self.second_teacher,
                    teacher_weights=self.second_teacher_weights,
                    teacher_entry=self.second_teacher_entry,
                    teacher_args=self.second_teacher_args,
                    teacher_mean=self.second_teacher_mean,
                    teacher_std=self.second_teacher_std,
                    teacher_classes=self.second_teacher_classes,
                )
        return given


@dataclasses.dataclass(frozen=True, kw_only=True)
class CropSettings(Settings):
    """The recipe of the crops."""

    recipe: str | None = setting(None, "Crop recipe: deit or plain.", group="crops", metavar="NAME", shown="deit")
    recipe_args: Named = setting(
        {},
        "Change a field of the recipe, such as erase=0 or scale=[0.5,1]; may be repeated.",
        group="crops",
        option="recipe-arg",
    )
    size: int | None = setting(None, "Side of the crops in pixels.", group="crops", shown=str(SIZE))

    def crop_recipe(self) -> CropRecipe:
        """The recipe; raises UsageError if its name or a field is unknown, or a value out of bounds."""
        from cskd_pipeline.crops.recipe import RECIPES, CropRecipe
        from cskd_pipeline.record import require_choice

        name = self.recipe or "deit"
        require_choice("recipe", name, RECIPES)
        size = SIZE if self.size is None else self.size
        return CropRecipe.from_json({**RECIPES[name].to_json(), "size": size, **self.recipe_args})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetSettings(Settings):
    """What is stored of a teacher's answers."""

    targets: str | None = setting(
        None, TARGETS_HELP, group="labels", metavar="LIST", shown=f"{DEFAULT_TARGETS}; what the store has"
    )
    target_args: Named = setting(
        {},
        "A setting of what is stored, such as soft.k=8 or full.dtype=float32; may be repeated.",
        group="labels",
        option="target-arg",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineSettings(Settings):
    """Where the work is done."""

    device: str | None = setting(
        None, "cpu, cuda or cuda:N.", group="machine", metavar="NAME", shown="a GPU where there is one"
    )
    workers: int | None = setting(
        None,
        "Processes that read images; 0 reads them in the main process.",
        group="machine",
        metavar="NUMBER",
        shown="auto, by the processors",
        low=0,
    )
    imports: tuple[str, ...] = setting(
        (),
        "Import a Python module first (a name, or a .py file), such as one that registers your models with timm; may "
        "be repeated.",
        group="machine",
        option="import",
        metavar="MODULE",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentSettings(MachineSettings):
    """Where the work is done, RandAugment's included."""

    augment: Literal["workers", "device"] = setting(
        "workers",
        "Where RandAugment runs: in the processes that read images, or on the model's GPU, which relieves them. The "
        "crops are the same, to the bit.",
        group="machine",
    )


def require_weights(option: str, path: Path | None) -> None:
    """Raise DataError if a path is given and no weights are there."""
    from cskd_pipeline.models.hub_model import is_hub_name, weights_of

    if path is None:
        return
    if not is_hub_name(str(path)) and not path.exists():
        raise DataError(f"{option} {path} does not exist; give a file of weights")
    weights_of(path)
