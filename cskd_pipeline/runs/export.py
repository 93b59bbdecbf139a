"""Write a trained student as a file for plain timm."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path

from cskd_pipeline.errors import UsageError


@dataclasses.dataclass(frozen=True, slots=True)
class Exported:
    """A file for timm.

    Attributes:
        file: where it is.
        parameters: how many it holds.
        call: the call of timm.create_model that builds the student from it, after the import that it needs, if any.
        averages: the heads whose mean timm's model gives; none where it has one head.
    """

    file: Path
    parameters: int
    call: str
    averages: tuple[str, ...]


def export(run: str | os.PathLike[str], file: str | os.PathLike[str], *, weights: str = "best") -> Exported:
    """Write the student of a run as a file that plain timm reads.

    Args:
        run: a run folder, or a weights file that `train` wrote.
        file: a new .safetensors or .pth file.
        weights: of a run folder: best, last or ema.

    Raises:
        UsageError: the file has another ending, or its folder does not exist.
        DataError: weights are missing or damaged.
        RetryError: storage is full or read-only.
    """
    import torch

    from cskd_pipeline.checkpoint import save_model
    from cskd_pipeline.models.student import parameter_count, plain_state_dict
    from cskd_pipeline.runs.trained_model import class_names, open_model, weights_file
    from cskd_pipeline.storage.durable import write_atomic

    path = Path(file)
    if path.suffix not in (".safetensors", ".pth"):
        raise UsageError(f"the file must end in .safetensors or .pth, found {path.name!r}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"the folder {path.parent} does not exist; make it first")
    source = weights_file(Path(run), weights=weights)
    student, names = open_model(source), class_names(source)
    state = plain_state_dict(student)
    if path.suffix == ".pth":
        buffer = io.BytesIO()  # torch hides the cause of a failing write
        torch.save(state, buffer)
        write_atomic(path, lambda handle: handle.write(buffer.getbuffer()))
    else:
        known = {} if names is None else {"classes": [*names]}
        save_model(path, state, metadata={"student": student.spec.to_json(), **known})
    # Models that this package adds to timm's must be imported; they need nothing else of it.
    module = type(student.model).__module__
    imports = f"import {module}; " if module.startswith("cskd_pipeline.") else ""
    arguments = "".join(f", {key}={value!r}" for key, value in student.spec.args.items())
    call = (
        f"{imports}timm.create_model({student.spec.model!r}, num_classes={student.spec.classes}{arguments}, "
        f"checkpoint_path={str(file)!r})"
    )
    heads = tuple(head for head in ("head", "head_dist", "head_conv", "head_inv") if f"{head}.weight" in state)
    return Exported(path, parameter_count(student.model), call, heads if len(heads) > 1 else ())
