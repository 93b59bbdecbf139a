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
        call: the call of timm.create_model that builds the student from it.
        averages: whether timm averages two heads of it.
    """

    file: Path
    parameters: int
    call: str
    averages: bool


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
    from cskd_pipeline.runs.trained_model import open_model, weights_file
    from cskd_pipeline.storage.durable import write_atomic

    path = Path(file)
    if path.suffix not in (".safetensors", ".pth"):
        raise UsageError(f"the file must end in .safetensors or .pth, found {path.name!r}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"the folder {path.parent} does not exist; make it first")
    student = open_model(weights_file(Path(run), weights=weights))
    state = plain_state_dict(student)
    if path.suffix == ".pth":
        buffer = io.BytesIO()  # torch hides the cause of a failing write
        torch.save(state, buffer)
        write_atomic(path, lambda handle: handle.write(buffer.getbuffer()))
    else:
        save_model(path, state, metadata={"student": student.spec.to_json()})
    arguments = "".join(f", {key}={value!r}" for key, value in student.spec.args.items())
    call = (
        f"timm.create_model({student.spec.model!r}, num_classes={student.spec.classes}{arguments}, "
        f"checkpoint_path={str(file)!r})"
    )
    return Exported(path, parameter_count(student.model), call, "head_dist.weight" in state)
