"""Reused memory comes back only when nobody can read it any more."""

from __future__ import annotations

import torch

from cskd_pipeline.runtime.memory import ReusedMemory


def test_memory_comes_back_when_its_last_user_is_gone() -> None:
    memory = ReusedMemory()
    first = memory.empty((2, 3), torch.float32)
    place = first.data_ptr()
    del first
    assert memory.empty((3, 2), torch.float32).data_ptr() == place


def test_memory_that_anybody_can_still_read_is_not_given_again() -> None:
    memory = ReusedMemory()
    weight = torch.ones(4, requires_grad=True)
    users = [
        lambda given: given,
        lambda given: given[:1].view(-1),
        lambda given: given.numpy(),
        lambda given: (given * weight).sum(),  # autograd keeps the factor
    ]
    for user in users:
        given = memory.empty((4,), torch.float32).fill_(7)
        place, kept = given.data_ptr(), user(given)
        del given
        other = memory.empty((4,), torch.float32)
        assert other.data_ptr() != place
        del kept
        assert memory.empty((4,), torch.float32).data_ptr() == place
        del other


def test_whoever_keeps_many_gets_fresh_memory_and_no_more_than_allowed_is_kept() -> None:
    memory = ReusedMemory(kept=2)
    held = [memory.empty((5,), torch.uint8).fill_(number) for number in range(6)]
    assert [int(tensor[0]) for tensor in held] == list(range(6))
    places = {tensor.data_ptr() for tensor in held}
    held.clear()
    assert len(memory._free) == 2
    assert {memory.empty((5,), torch.uint8).data_ptr() for _ in range(9)} <= places


def test_memory_of_another_size_is_let_go() -> None:
    memory = ReusedMemory()
    for size in range(1, 9):
        memory.empty((size,), torch.uint8)
    assert [block.size for block in memory._free] == [8]


def test_empty_shapes() -> None:
    assert ReusedMemory().empty((0, 3), torch.float32).shape == (0, 3)
