r"""What stored features cost in bytes, and what is left of them: of the values, and of a loss's gradient.

    python benchmarks/features.py --data 'DATA/imagenette160/train-*.tar' --teacher MODEL --teacher-weights FILE
    python benchmarks/features.py --data DATA --device cuda --size 224 --batches 16

Crops are those of the recipe `deit`. Bytes are what the store's compression makes of the rows. `cosine` is that of the
gradient of the student's weights, averaged over a batch, with the one of all positions in fp32: for `vitkd` of its two
terms on tokens, with the same masks on both sides; for `vkd` of its term on the pooled feature. Beside it is what the
choice of masks alone does: the cosine of two gradients of all positions in fp32, each with masks of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import report

Row = dict[str, Any]
TOKENS = [(0, 8), (98, 8), (98, 4), (49, 8), (49, 4), (36, 4), (28, 4), (16, 8), (16, 4), (8, 4)]
"""Positions kept (0: all), and bits of a value."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="shapes", help="data set, as the command line takes it (%(default)s)")
    parser.add_argument("--student", default="deit_tiny_patch16_224", help="which (%(default)s)")
    parser.add_argument("--student-arg", action="append", default=[], help="KEY=VALUE; may be repeated")
    parser.add_argument("--checkpoint", type=Path, help="last.pt of a vitkd run of this student (default: random ones)")
    parser.add_argument("--teacher", default="deit3_small_patch16_224", help="of timm (%(default)s)")
    parser.add_argument("--teacher-arg", action="append", default=[], help="KEY=VALUE; may be repeated")
    parser.add_argument("--teacher-weights", type=Path, help="(default: timm's)")
    parser.add_argument("--teacher-classes", type=int, help="(default: the data's)")
    parser.add_argument("--teacher-mean", type=float, help="mean and deviation of its input (default: timm's)")
    parser.add_argument("--size", type=int, default=224, help="side of crops (%(default)s)")
    parser.add_argument("--batch", type=int, default=256, help="crops in a batch (%(default)s)")
    parser.add_argument("--batches", type=int, default=4, help="how many (%(default)s)")
    parser.add_argument("--device", default="cpu", help="(%(default)s)")
    report.add_output_options(parser)
    arguments = parser.parse_args()
    rows = compare(arguments)
    options = ("data", "student", "student_arg", "teacher", "teacher_arg", "size", "batch", "batches", "device")
    command = report.command_line("features", arguments, options)
    report.publish(rows, table(rows), arguments, mark="features", command=command, on=report.machine("timm"))


def compare(arguments: argparse.Namespace) -> list[Row]:
    """One row a form of storage."""
    import torch

    from cskd_pipeline.crops.recipe import RECIPES
    from cskd_pipeline.data import open_split
    from cskd_pipeline.labelling.calibration import with_channels
    from cskd_pipeline.models.teacher.load import load_teacher

    index = open_split(arguments.data, "train")
    recipe = dataclasses.replace(RECIPES["deit"], size=arguments.size)
    teacher = load_teacher(
        arguments.teacher,
        classes=arguments.teacher_classes or len(index.classes),
        size=arguments.size,
        device=torch.device(arguments.device),
        weights=arguments.teacher_weights,
        args=named(arguments.teacher_arg),
    )
    if arguments.teacher_mean is not None:
        same = (arguments.teacher_mean,) * 3
        teacher.spec = dataclasses.replace(teacher.spec, mean=same, std=same)
    wanted: dict[str, dict[str, Any]] = {"features.pooled": {}} | (
        {"features.tokens": {}} if teacher.has_tokens else {}
    )
    known = with_channels(wanted, {}, index=index, recipe=recipe, teacher=teacher)
    batches = list(features_of(index, recipe, teacher, known, arguments))
    rows = pooled_rows(known["features.pooled"], batches, teacher, arguments)
    return rows + (token_rows(known["features.tokens"], batches, teacher, arguments) if teacher.has_tokens else [])


def named(pairs: list[str]) -> dict[str, Any]:
    import yaml

    return {key: yaml.safe_load(value) for key, _, value in (pair.partition("=") for pair in pairs)}


def features_of(index: Any, recipe: Any, teacher: Any, known: Any, arguments: argparse.Namespace) -> Iterator[Any]:
    """Batches of (pixels, features), spread over the data set."""
    import numpy as np
    import torch

    from cskd_pipeline.crops.draws import draw_positions
    from cskd_pipeline.loading import CropLoader
    from cskd_pipeline.loading.order import sample_batches

    total = len(index)
    layers = known.get("features.tokens", {}).get("layers", ())
    groups = np.linspace(0, total // recipe.group - 1, arguments.batches * arguments.batch // recipe.group).astype(int)
    samples = np.concatenate([group * recipe.group + np.arange(recipe.group) for group in groups])
    with CropLoader(index, recipe, workers=0) as loader:
        for crops in loader.load(sample_batches(recipe, 0, samples, total=total, batch=arguments.batch)):
            pixels = crops.pixels(recipe, mean=teacher.spec.mean, std=teacher.spec.std, device=teacher.device).clone()
            *_, features = teacher.answer(pixels, pooled=True, layers=layers)
            words = draw_positions(recipe, 0, crops.draws_B["sample"], positions=teacher.positions)
            words_BP = torch.from_numpy(words).to(teacher.device)
            yield pixels, type(features)(*(part if part is None else part.clone() for part in features[:2]), words_BP)


def student_for(objective: Any, teacher: Any, arguments: argparse.Namespace) -> Any:
    from functools import partial

    import torch

    from cskd_pipeline.models.student import add_adapter, create_student

    layers = objective.layers if "features.tokens" in objective.needs else ()
    student = create_student(
        arguments.student,
        classes=teacher.spec.classes,
        size=arguments.size,
        args=named(arguments.student_arg),
        layers=objective.layers,
    )
    add_adapter(student, partial(objective.adapter, teacher=teacher.features(layers)), seed=0)
    if arguments.checkpoint is not None and layers:
        student.load_state_dict(torch.load(arguments.checkpoint, weights_only=True)["model"])
    return student.to(teacher.device)


def bytes_a_crop(encoding: Any, rows: Any) -> float:
    """As the store compresses them."""
    from numcodecs import Zstd

    from cskd_pipeline.store.layout import chunk_rows

    count = chunk_rows(encoding.field, 1024)
    parts = [Zstd(3, checksum=True).encode(rows[i : i + count]) for i in range(0, len(rows), count)]
    return sum(map(len, parts)) / len(rows)


def row_of(encoding: Any, batches: list[Any], cosines: list[float], **more: Any) -> Row:
    """Bytes and errors of a form, over all batches."""
    import numpy as np
    import torch

    from cskd_pipeline.labelling.fidelity import measure

    none = torch.zeros(arguments_batch(batches), encoding.positions, 2), torch.zeros(arguments_batch(batches), 2)
    parts, errors = [], []
    for _, features in batches:
        records = encoding.encode(*none, None, features)
        found = measure({encoding.name: encoding}, {encoding.name: records}, *none, None, features, grid=more["grid"])
        errors.append({key: value for key, value in found[encoding.name].items() if key.startswith("error")})
        parts.append(records.rows)
    rows = np.concatenate(parts)
    mean = {key: sum(one[key] for one in errors) / len(errors) for key in errors[0]}
    return {
        "bench": "features",
        "bytes": rows.shape[1],
        "stored": round(bytes_a_crop(encoding, rows), 1),
        **{key: float(f"{value:.3g}") for key, value in mean.items()},
        "cosine": round(sum(cosines) / len(cosines), 4),
        **{key: value for key, value in more.items() if key != "grid"},
    }


def arguments_batch(batches: list[Any]) -> int:
    return len(batches[0][0])


def gradient(loss_B: Any, student: Any) -> Any:
    """Of the mean, with respect to the weights of the student itself, as one vector."""
    import torch

    weights = list(student.model.parameters())
    found = torch.autograd.grad(loss_B.mean(), weights, retain_graph=True, allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in found])


def cosine(one: Any, other: Any) -> float:
    import torch

    return float(torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=0))


def pooled_rows(known: Any, batches: list[Any], teacher: Any, arguments: argparse.Namespace) -> list[Row]:
    """The pooled feature at each number of bits, and the gradient of VkD's term on it."""
    from cskd_pipeline.labels import PooledEncoding
    from cskd_pipeline.losses import normed_distance
    from cskd_pipeline.objectives import create_objective

    sizes = {"positions": teacher.positions, "classes": teacher.spec.classes}
    forms = {bits: PooledEncoding.from_json({**sizes, **known, "bits": bits}) for bits in (8, 7, 6, 4)}
    student = student_for(create_objective("vkd"), teacher, arguments)
    cosines: dict[int, list[float]] = {bits: [] for bits in forms}
    for pixels, features in batches:
        projected_BD = student.adapter(student(pixels).tokens[-1].mean(1))
        exact = gradient(normed_distance(projected_BD, features.pooled_BD), student)
        for bits, encoding in forms.items():
            decoded = decode(encoding, features, teacher).pooled_BD
            cosines[bits].append(cosine(gradient(normed_distance(projected_BD, decoded), student), exact))
    width = len(known["channels"])
    return [
        row_of(encoding, batches, cosines[bits], grid=teacher.grid, form=f"pooled, {width} values, {bits} bits")
        for bits, encoding in forms.items()
    ]


def decode(encoding: Any, features: Any, teacher: Any) -> Any:
    import torch

    batch = len(features.pooled_BD)
    none = torch.zeros(batch, encoding.positions, 2), torch.zeros(batch, 2)
    entries = encoding.tabulate(encoding.encode(*none, None, features), ratio_steps=0)
    return encoding.targets(entries, grid=teacher.grid, ratio_steps=0, device=teacher.device)


def token_rows(known: Any, batches: list[Any], teacher: Any, arguments: argparse.Namespace) -> list[Row]:
    """Patch tokens of three layers in every form of `TOKENS`, and the gradient of ViTKD's terms on them."""
    import torch

    from cskd_pipeline.batch import TokenTargets
    from cskd_pipeline.labels import TokensEncoding
    from cskd_pipeline.losses import draw_mask
    from cskd_pipeline.objectives import create_objective

    positions = teacher.positions
    objective: Any = create_objective("vitkd")
    masked = objective.masked(positions)
    student = student_for(objective, teacher, arguments)
    sizes = {"positions": positions, "classes": teacher.spec.classes}
    forms = {
        (kept, bits): TokensEncoding.from_json({**sizes, **known, "tokens": kept, "bits": bits})
        for kept, bits in TOKENS
        if kept < positions
    }
    cosines: dict[Any, list[float]] = {form: [] for form in (*forms, "masks")}
    for pixels, features in batches:
        tokens = student(pixels).tokens
        everywhere_BP = torch.arange(positions, device=teacher.device).expand(len(pixels), -1)
        exact = TokenTargets(features.tokens_BLPD, everywhere_BP, positions)
        # One mask for all forms: the positions that would be kept first, so that all kept ones are in it.
        chosen_Bm = features.words_BP.argsort(dim=1, stable=True)[:, :masked]
        mask_BP = torch.zeros_like(everywhere_BP, dtype=torch.bool).scatter(1, chosen_Bm, True)
        reference = gradient(objective.on_tokens(tokens, exact, student.adapter, mask_BP, chosen_Bm), student)
        other = draw_mask(everywhere_BP, positions=positions, masked=masked)
        again = gradient(objective.on_tokens(tokens, exact, student.adapter, *other), student)
        cosines["masks"].append(cosine(again, reference))
        for form, encoding in forms.items():
            taught = decode(encoding, features, teacher).tokens
            chosen = chosen_Bm if taught.kept_Bn.shape[1] >= masked else taught.kept_Bn
            found = gradient(objective.on_tokens(tokens, taught, student.adapter, mask_BP, chosen), student)
            cosines[form].append(cosine(found, reference))
    masks = round(sum(cosines["masks"]) / len(batches), 4)
    return [
        row_of(
            encoding,
            batches,
            cosines[form],
            grid=teacher.grid,
            form=f"tokens, {encoding.kept} of {positions} x {len(known['channels'][0])} values, {form[1]} bits",
            masks=masks,
        )
        for form, encoding in forms.items()
    ]


def table(rows: list[Row]) -> str:
    lines = [
        "| what is kept | bytes a crop | stored | relative squared error | cosine of the gradient |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        errors = ", ".join(f"{value:.2g}" for key, value in row.items() if key.startswith("error"))
        lines.append(f"| {row['form']} | {row['bytes']:,} | {row['stored']:,.0f} | {errors} | {row['cosine']:.4f} |")
    masks = {row["masks"] for row in rows if "masks" in row}
    if masks:
        lines += ["", f"Other masks alone, with all positions in fp32: {max(masks):.4f}."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
