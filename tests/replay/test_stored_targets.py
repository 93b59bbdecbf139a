"""A batch gets the targets of its own crops, whatever encodings hold them and however they are kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up_labels import CLASSES, GRID, SAMPLES, MadeUpReader, stored_rows
from torch import Tensor

from cskd_pipeline.batch import Targets
from cskd_pipeline.crops.batch import CropBatch
from cskd_pipeline.crops.draws import CROP_DRAW
from cskd_pipeline.crops.recipe import RECIPES, CropRecipe
from cskd_pipeline.errors import DataError, MismatchError, UsageError
from cskd_pipeline.labels.base import FixedRows
from cskd_pipeline.labels.full import FullEncoding
from cskd_pipeline.labels.soft import SoftEncoding
from cskd_pipeline.replay import Canary, StoredTargets, decoding, tables
from cskd_pipeline.store import StoreHeader, StoreReader, StoreWriter

CPU = torch.device("cpu")
BOTH = frozenset({"hard", "soft"})


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeUpReader:
    monkeypatch.setattr(decoding, "PROGRAM", Path(__file__).with_name("made_up_labels.py"))
    return MadeUpReader(tmp_path)


def crops(seeds: list[int], samples: list[int]) -> CropBatch:
    draws = np.zeros(len(samples), CROP_DRAW)
    draws["seed"], draws["sample"] = seeds, samples
    crc = np.array([stored_rows("crop_crc", *pair)[0] for pair in zip(seeds, np.array([samples]).T, strict=True)])
    pixels = torch.zeros(len(samples), 3, 1, 1, dtype=torch.uint8)
    return CropBatch(pixels, draws, np.arange(len(samples)), np.zeros(len(samples), np.int64), crc)


def expected(name: str, seeds: list[int], samples: list[int]) -> Tensor:
    """Rows as the store has them, looked up one by one."""
    rows = [stored_rows(name, seed, np.array([sample]))[0] for seed, sample in zip(seeds, samples, strict=True)]
    return torch.from_numpy(np.stack(rows).astype(np.float32 if name == "full" else np.int64))


def values(targets: Targets | None) -> dict[str, Any]:
    assert targets is not None
    names = ("hard_global_B", "hard_dense_BHW", "logits_global_BC", "logits_dense_BCHW", "sparse")
    return {name: value for name in names if (value := getattr(targets, name)) is not None}


@pytest.mark.parametrize("small", [1 << 20, 0])
def test_tables_of_this_process_and_shared_ones_give_the_same_targets(
    reader: MadeUpReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr(tables, "SMALL_BYTES", small)
    with StoredTargets(reader, needs=BOTH, canary=Canary(1.0), scratch=tmp_path / "scratch") as stored:
        stored.prepare([3, 5], ratio_steps=70, upcoming=([4, 5], 80))
        rng = np.random.default_rng(0)
        for seeds in ([3] * 40, [5] * 40, rng.choice([3, 5], 40).tolist()):
            samples = rng.integers(0, SAMPLES, 40).tolist()
            found = values(stored.targets(crops(seeds, samples), device=CPU))
            hard, full = expected("hard", seeds, samples) + 70, expected("full", seeds, samples)
            assert sorted(found) == ["hard_dense_BHW", "hard_global_B", "logits_dense_BCHW", "logits_global_BC"]
            assert torch.equal(found["hard_global_B"], hard[:, 0])
            assert torch.equal(found["hard_dense_BHW"], hard[:, 1:].reshape(-1, *GRID))
            assert torch.equal(found["logits_global_BC"], full[:, 0])
            dense = full[:, 1:].transpose(1, 2).reshape(-1, CLASSES, *GRID)
            assert torch.equal(found["logits_dense_BCHW"], dense)
        stored.prepare([4, 5], ratio_steps=80)
        again = values(stored.targets(crops([4, 5], [9, 9]), device=CPU))
        assert torch.equal(again["hard_global_B"], expected("hard", [4, 5], [9, 9])[:, 0] + 80)
    assert (tmp_path / "scratch").is_dir() == (not small), "small seeds need no scratch folder"


@pytest.mark.parametrize(
    "names, needs, fields",
    [
        (("hard", "full"), {"hard"}, ["hard_dense_BHW", "hard_global_B"]),
        (("full",), {"hard"}, ["logits_dense_BCHW", "logits_global_BC"]),
        (("hard", "full"), {"soft"}, ["logits_dense_BCHW", "logits_global_BC"]),
        (("full",), {"hard", "soft"}, ["logits_dense_BCHW", "logits_global_BC"]),
    ],
)
def test_the_best_stored_encoding_serves_each_need(
    tmp_path: Path, names: tuple[str, ...], needs: set[str], fields: list[str]
) -> None:
    stored = StoredTargets(MadeUpReader(tmp_path, names), needs=frozenset(needs), canary=Canary(0))
    stored.prepare([0], ratio_steps=0)
    assert sorted(values(stored.targets(crops([0], [1]), device=CPU))) == fields


def test_exact_soft_targets_are_preferred_to_compact_ones(reader: MadeUpReader) -> None:
    soft = SoftEncoding(positions=4, classes=CLASSES)
    reader.encodings = {"soft": soft, "full": reader.encodings["full"]}
    stored = StoredTargets(reader, needs=frozenset({"soft"}), canary=Canary(0))
    stored.prepare([0], ratio_steps=0)
    assert "logits_dense_BCHW" in values(stored.targets(crops([0], [1]), device=CPU))


def test_what_the_store_does_not_hold_is_refused_with_the_way_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match=r"holds no soft targets \(it has hard\).*add-targets .*--targets soft"):
        StoredTargets(MadeUpReader(tmp_path, ("hard",)), needs=BOTH, canary=Canary(0))


@pytest.mark.parametrize("needs", [frozenset(), frozenset({"hard"})])
def test_pixels_are_checked_whether_or_not_targets_are_needed(reader: MadeUpReader, needs: frozenset[str]) -> None:
    stored = StoredTargets(reader, needs=needs, canary=Canary(0))
    stored.prepare([1, 2], ratio_steps=0)
    batch = crops([1, 2, 1], [50, 3, 4])
    assert (stored.targets(batch, device=CPU) is None) == (not needs)
    stored.prepare([1, 2], ratio_steps=0)
    batch.crc_B[1] ^= 1
    with pytest.raises(DataError, match="seed 2, sample 3"):
        stored.targets(batch, device=CPU)


def test_only_what_follows_the_ratio_is_decoded_again(reader: MadeUpReader) -> None:
    stored = StoredTargets(reader, needs=BOTH, canary=Canary(0))
    for ratio_steps in (1, 2):
        stored.prepare([1], ratio_steps=ratio_steps)
    decoded = [line.split()[2] for line in (Path(reader.path) / "log").read_text().splitlines() if line.endswith(" 0")]
    assert sorted(decoded) == ["crop_crc", "full", "hard", "hard"]


def test_the_tables_of_a_store_on_disk_hold_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "SMALL_BYTES", 0)
    encoding = FullEncoding(4, CLASSES, "float32")
    header = StoreHeader(
        recipe={},
        data={"name": "made up", "split": "train", "samples": SAMPLES, "classes": CLASSES, "digest": "0"},
        teacher={},
        grid=GRID,
        encodings={"full": encoding.to_json()},
        block=64,
    )
    rows = stored_rows("full", 2, np.arange(SAMPLES))
    crc = stored_rows("crop_crc", 2, np.arange(SAMPLES))
    path = tmp_path / "labels.zarr"
    writer = StoreWriter(path, header)
    for block in range(header.blocks):
        part = slice(header.rows(block).start, header.rows(block).stop)
        writer.write_block(2, block, {"full": FixedRows(rows[part])}, crc[part], versions={})
    samples = np.random.default_rng(2).permutation(SAMPLES)[:50].tolist()
    with StoredTargets(StoreReader(path), needs=BOTH, canary=Canary(1), scratch=tmp_path / "scratch") as stored:
        stored.prepare([2], ratio_steps=1)
        found = values(stored.targets(crops([2] * 50, samples), device=CPU))
        assert torch.equal(found["logits_global_BC"], expected("full", [2] * 50, samples)[:, 0])


def test_targets_before_their_epoch_is_prepared_are_a_slip_of_the_caller(reader: MadeUpReader) -> None:
    stored = StoredTargets(reader, needs=BOTH, canary=Canary(0))
    with pytest.raises(UsageError, match="no epoch is prepared; call prepare"):
        stored.targets(crops([1], [1]), device=CPU)
    with pytest.raises(UsageError, match=r"of the epoch must be a whole number, found 0\.5"):
        stored.prepare([1], ratio_steps=0.5)  # type: ignore[arg-type]
    stored.prepare([1], ratio_steps=0)
    with pytest.raises(UsageError, match="seed 2 is not prepared"):
        stored.targets(crops([2], [1]), device=CPU)


@dataclasses.dataclass
class Images:
    """What a store asks of an index."""

    samples: int = SAMPLES
    classes: tuple[str, ...] = ("a", "b", "c")
    digest: str = "made-up"

    def __len__(self) -> int:
        return self.samples


RECIPE = dataclasses.replace(RECIPES["deit"], size=24)


@pytest.mark.parametrize(
    "images, recipe, seeds, said",
    [
        (Images(samples=88), RECIPE, (1,), "samples is 100 there, 88 here"),
        (Images(classes=("a", "b")), RECIPE, (1,), "classes is 3 there, 2 here"),
        (Images(digest="other"), RECIPE, (1,), "digest is made-up there, other here"),
        (
            Images(),
            dataclasses.replace(RECIPE, size=32, key=7),
            (1,),
            "key is 0 there, 7 here; size is 24",
        ),
        (Images(), RECIPE, (1, 12, 9, 13, 20), "seeds 12:14,20 are not complete in .*; make them with"),
    ],
)
def test_a_store_of_other_crops_is_refused_with_both_values(
    reader: MadeUpReader, images: Images, recipe: CropRecipe, seeds: tuple[int, ...], said: str
) -> None:
    reader.header = dataclasses.replace(reader.header, recipe=RECIPE.to_json())
    stored = StoredTargets(reader, needs=BOTH, canary=Canary(0))
    stored.require(Images(), RECIPE, (0, 9))
    with pytest.raises(MismatchError, match=said):
        stored.require(images, recipe, seeds)
