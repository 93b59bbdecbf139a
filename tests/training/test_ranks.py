"""What the processes of a run tell one another when something goes wrong, with the group played by hand."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch.distributed as dist

from cskd_pipeline.errors import DataError, StoppedError
from cskd_pipeline.runtime import ranks
from cskd_pipeline.runtime.device import process_group


class UnsendableError(Exception):
    """An error that pickle cannot rebuild."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def fail(error: Exception) -> Any:
    raise error


@pytest.mark.parametrize(
    ("error", "elsewhere", "message"),
    [
        (DataError("bad"), DataError, "^bad$"),
        (UnsendableError(1, 2), RuntimeError, "^on rank 0: UnsendableError: 1 and 2$"),
    ],
)
def test_any_error_of_one_rank_reaches_the_others(
    error: Exception, elsewhere: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire: list[bytes] = []

    def gather(values: list[Any], value: Any) -> None:
        wire.append(pickle.dumps(value))
        values[:] = [pickle.loads(sent) for sent in [*wire, pickle.dumps((7, None))][:2]]

    monkeypatch.setattr(ranks, "world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    monkeypatch.setattr(ranks, "rank", lambda: 0)
    with pytest.raises(type(error)) as caught:
        ranks.on_first_rank(lambda: fail(error))
    assert caught.value is error
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    with pytest.raises(elsewhere, match=message):
        ranks.on_first_rank(lambda: pytest.fail("ran on the second rank"))
    with pytest.raises(elsewhere, match=message):
        ranks.on_all_ranks(lambda: 5)
    wire.clear()
    assert ranks.on_all_ranks(lambda: 5) == [5, 7]


@pytest.mark.parametrize(("error", "left"), [(None, 1), (StoppedError("as asked"), 1), (DataError("bad"), 0)])
def test_the_group_is_left_only_where_all_ranks_leave_it(
    error: Exception | None, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(dist, "init_process_group", lambda backend: calls.append("join"))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append("leave"))

    def work() -> None:
        with process_group("cpu"):
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(type(error)):
            work()
    assert calls == ["join", *["leave"] * left]
