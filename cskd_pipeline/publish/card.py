"""A data set card: a description of a published store in the format of the Hugging Face Hub.

Text from a store is untrusted: it is shown as code, on one line, and can end neither a cell, a fence nor the front
matter.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from typing import Any

import yaml

from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.labels.choice import described
from cskd_pipeline.publish.markdown import code, fenced, line, table
from cskd_pipeline.seeds import format_seeds
from cskd_pipeline.storage import Storage
from cskd_pipeline.store import layout
from cskd_pipeline.store.commit import mean_fidelity
from cskd_pipeline.store.summary import StoreSummary

_SIZES = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B"]
_SIZES += ["10B<n<100B", "100B<n<1T", "n>1T"]
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_SEAL = re.compile(rb"\n<!-- cskd-pipeline export-labels ([0-9a-f]{16}) -->\n\Z")


def write_card(storage: Storage, summary: StoreSummary, *, license: str | None = None) -> bool:
    """Write the card of a store; return False if somebody wrote or edited the one that is there, which then stays."""
    content = card_text(summary, license=license).encode()
    if storage.create(layout.CARD, content):
        return True
    with contextlib.suppress(FileNotFoundError, DataError):
        if _is_untouched(storage.read(layout.CARD, limit=layout.MAX_METADATA_BYTES)):
            storage.write(layout.CARD, content)
            return True
    return False


def card_text(summary: StoreSummary, *, license: str | None = None) -> str:
    """The card of a store.

    Args:
        summary: of the store.
        license: of its labels: an identifier known to the Hub, or any other text.
    """
    text = f"---\n{_front_matter(summary, license)}---\n\n{_body(summary, license)}"
    return f"{text}\n<!-- cskd-pipeline export-labels {_digest(text.encode())} -->\n"


def require_license(text: str | None) -> None:
    """Raise UsageError if the licence is a blank text; None is allowed."""
    if text is not None and not text.strip():
        raise UsageError("--license is empty; give an identifier such as cc-by-nc-4.0, or leave it out")


def _is_untouched(content: bytes) -> bool:
    """Whether a card is exactly as `write_card` wrote it."""
    seal = _SEAL.search(content)
    return seal is not None and seal[1].decode() == _digest(content[: seal.start()])


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _front_matter(summary: StoreSummary, license: str | None) -> str:
    data, teacher = summary.header["data"], summary.header["teacher"]
    identifier = (license or "other").strip().lower()
    values: dict[str, Any] = {"license": identifier}
    if _IDENTIFIER.fullmatch(identifier) is None:
        values = {"license": "other", "license_details": line(license)}
    values |= {
        "pretty_name": line(f"Labels of {data['name']} {data['split']} by {teacher.get('model', 'a teacher')}"),
        "task_categories": ["image-classification"],
        "tags": ["knowledge-distillation", "image-classification", "vision-transformer", "cskd", "zarr", "timm"],
        "size_categories": [_size_category(summary.crops)],
    }
    return yaml.safe_dump(values, sort_keys=False, width=1 << 20)


def _size_category(crops: int) -> str:
    return _SIZES[min(max(0, len(str(crops)) - 3), len(_SIZES) - 1)]


def _body(summary: StoreSummary, license: str | None) -> str:
    header = summary.header
    data, teacher, recipe = header["data"], header["teacher"], header["recipe"]
    height, width = header["grid"]
    facts = {
        "Data set": f"{code(data['name'])}, split {code(data['split'])}",
        "Samples, classes": f"{data['samples']:,}, {data['classes']:,}",
        "Digest of keys, labels and order": code(data["digest"]),
        "Teacher": f"{code(teacher.get('model'))} of timm, arguments {code(json.dumps(teacher.get('args', {})))}",
        "Digest of its weights": code(teacher.get("weights")),
        "Its precision, crops per forward pass": f"{code(teacher.get('precision'))}, {code(teacher.get('chunk'))}",
        "Grid of positions": f"{height} x {width}",
        "Global targets": code(teacher.get("global_source")),
        "Seeds (views of every sample)": f"{code(format_seeds(summary.complete))}, {len(summary.complete):,} in all",
        "Crops": f"{summary.crops:,}",
        "Digest of the content": code(summary.digest),
    }
    return "\n".join(
        [
            f"# Labels of {code(data['name'])} by {code(teacher.get('model'))}",
            "",
            "A teacher's labels for augmented crops of a data set, at every position of its grid. With them vision",
            "transformers are trained by distillation without running the teacher. This is a zarr v3 group in store",
            f"format {header['format_version']} of `cskd-pipeline`, whose page `docs/format.md` describes every byte.",
            "",
            "**No images are included**, nor class names, nor the teacher's weights: you need the data set itself. A",
            "crop is a function of the recipe below, a seed and a sample's place in the data set; a checksum of its",
            "pixels is stored, so that training notices other images.",
            "",
            "## What it is made of",
            "",
            *table(["", ""], [[name, value] for name, value in facts.items()]),
            "",
            "Recipe of the crops:",
            "",
            *fenced(json.dumps(recipe, indent=1), "json"),
            "",
            "## What is stored",
            "",
            *_encodings(summary),
            "",
            "Measured on a sample of the crops: how close decoding comes to the teacher's own logits and features.",
            "`agreement` is the share of positions with the teacher's class, `kl_dense` and `kl_global` are in nats,",
            "`kept_dense` and `kept_global` are the probability mass of the classes that are stored by name,",
            "`probability` is the mean error of the true classes' probabilities, `error` the squared error of features",
            "relative to their square and `cosine` their cosine (of patch tokens by layer).",
            "",
            "## Use",
            "",
            *fenced(
                "cskd-pipeline verify hf://USER/NAME\n"
                "cskd-pipeline train --data DATA --labels hf://USER/NAME --student deit_s --out run",
                "sh",
            ),
            "",
            "`verify` compares every file with its checksum and shows the digest of the content (`--json`). Training",
            "downloads the seeds and targets that it reads, takes the recipe from the store and refuses data with "
            "another",
            "digest. A copy in a folder or a bucket is given by its path.",
            "",
            "With zarr alone:",
            "",
            *fenced(_snippet(summary), "python"),
            "",
            "## Licence",
            "",
            "The publisher of these labels must choose a licence; none was named."
            if license is None
            else f"{code(license)}, as named by the publisher.",
            "The terms of the data set and of the teacher's weights may also apply to them.",
            "",
            "## Publish it",
            "",
            "This uploads the folder; after an interruption, run it again to continue:",
            "",
            *fenced("cskd-pipeline export-labels labels.zarr hf://USER/NAME", "sh"),
            "",
        ]
    )


def _encodings(summary: StoreSummary) -> list[str]:
    size = summary.bytes_per_crop
    fidelity = mean_fidelity(seed.fidelity for seed in summary.seeds)
    rows = []
    for name, settings in summary.header["encodings"].items():
        stored = size.get(name, 0.0) + size.get(f"{name}_spill", 0.0)
        measured = fidelity.get(name, {})
        values = ", ".join(f"{code(key)} {value:.6g}" for key, value in measured.items() if key != "crops")
        on = f" (on {measured['crops']:,} crops)" if measured else "not measured"
        rows.append([code(name), code(described(settings)), f"{stored:,.2f}", values + on])
    rows.append([code(layout.CROP_CRC.name), "crc32c of the pixels", f"{size.get(layout.CROP_CRC.name, 0.0):,.2f}", ""])
    rows.append(["all", "", f"{size['total']:,.2f}", ""])
    return table(["encoding", "settings", "bytes a crop", "measured"], rows)


def _snippet(summary: StoreSummary) -> str:
    """Code that opens the store and reads from every array; it contains no text from the store."""
    seed = layout.seed_name(next(iter(summary.complete), 0))
    lines = [
        "import zarr",
        "",
        'store = zarr.open_group("labels.zarr", mode="r")',
        f'seed, samples = store["{seed}"], store.attrs["data"]["samples"]',
        'checksums = seed["crop_crc"][:samples]  # of the pixels of each crop, in canonical order',
    ]
    for name in summary.header["encodings"]:
        if name == "full":
            lines.append('logits = seed["full"][0]  # of the first crop: global, then one row a position')
        elif name in ("hard", "soft"):
            array = f'seed["{name}"]'
            lines.append(f"{name}_page = {array}[: {array}.chunks[0]].tobytes()  # the first page of records")
        else:
            lines.append(f'{name.replace(".", "_")}_row = seed["{name}"][0]  # of the first crop')
    return "\n".join(lines)
