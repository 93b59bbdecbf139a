"""Items made ahead in a thread are the same items, errors and ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from cskd_pipeline.runtime.ahead import ahead

CPU = torch.device("cpu")


def test_items_come_in_order_and_are_made_elsewhere() -> None:
    makers = set()

    def items() -> Iterator[int | None]:
        for number in (0, None, 2):
            makers.add(threading.current_thread())
            yield number

    assert list(ahead(items(), depth=1, device=CPU)) == [0, None, 2]
    assert len(makers) == 1 and threading.current_thread() not in makers


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    found = []
    with pytest.raises(ValueError, match="no more"):
        for item in ahead(items(), depth=4, device=CPU):
            found.append(item)
    assert found == [1]


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_is_made_than_may_wait(depth: int) -> None:
    made: list[int] = []
    reached = threading.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if number == 1 + depth:
                reached.set()
            yield number

    taken: Any = ahead(items(), depth=depth, device=CPU)
    assert next(taken) == 0
    assert reached.wait(10)  # item 0 is in use, `depth` wait, one is made
    taken.close()
    assert made == list(range(depth + 2))


def test_stopping_early_closes_what_makes_the_items() -> None:
    closed: list[threading.Thread] = []

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread())

    taken: Any = ahead(items(), depth=1, device=CPU)
    next(taken)
    taken.close()
    assert len(closed) == 1 and not closed[0].is_alive()


def test_a_thread_has_as_many_threads_to_compute_with() -> None:
    """A teacher's bits may depend on it."""

    def items() -> Iterator[int]:
        torch.ones(1000).sum()
        yield torch.get_num_threads()

    assert list(ahead(items(), depth=1, device=CPU)) == [torch.get_num_threads()]


def test_the_thread_that_makes_items_may_collect_the_one_that_reads_them() -> None:
    """As the collector of garbage does, wherever it happens to run."""
    read, closed = threading.Event(), threading.Event()
    errors: list[BaseException] = []
    made: Any = None

    def items() -> Iterator[int]:
        yield 0
        read.wait(10)
        try:
            made.close()
        except RuntimeError as error:
            errors.append(error)
        closed.set()
        yield 1

    made = ahead(items(), depth=1, device=CPU)
    assert next(made) == 0
    read.set()
    assert closed.wait(10)
    assert errors == []
