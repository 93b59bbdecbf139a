"""Worker processes that carry out orders and answer in the order in which they were asked.

Orders and answers are a few bytes in a pipe; pixels lie in memory that parent and workers share. Nothing here needs a
file or a semaphore in /dev/shm, which a container may keep small or lack.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pickle
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

import torch

from cskd_pipeline.errors import RetryError
from cskd_pipeline.loading.worker_start import leave_signals_to_the_parent

Order = TypeVar("Order")
Answer = TypeVar("Answer")

_LOOK_S = 5.0
"""How often an idle worker looks whether its parent is still there."""

_END_S = 5.0
"""How long a worker has to finish what it is at, before it is killed."""


class Workers(Generic[Order, Answer]):
    """Processes that live until they are closed, or without any the calling process, which works when asked."""

    def __init__(self, work: Callable[[Order], Answer], count: int, *, method: str | None) -> None:
        """Start `count` processes.

        Args:
            work: what each does with an order. What it raises is raised where its answer is due.
            count: number of processes; 0 for none.
            method: how to start them, see `start_method`.
        """
        self._work = work
        self._started: list[_Worker] = []
        self._owing: deque[_Worker] = deque()
        if count:
            context: Any = multiprocessing.get_context(method)
            heard, over = context.Pipe(duplex=False)
            self._started = [_start(context, work, heard) for _ in range(count)]
            heard.close()
            self._end = weakref.finalize(self, _end, self._started, over)

    def answers(self, orders: Iterable[Order], *, ahead: int) -> Iterator[Answer]:
        """The answer to each order, in order.

        Workers have begun when this returns. An order is given before the latest answer is handed out: at most
        `ahead` orders a worker are under way, and one answer in use.

        Raises:
            RetryError: a worker was killed.
        """
        if not self._started:
            return map(self._work, orders)
        while self._owing:  # of a call that was not used up: what they work at must not be mistaken for this one's
            self._owing.popleft().answer()
        coming = zip(orders, itertools.cycle(self._started), strict=False)
        for order, worker in itertools.islice(coming, ahead * len(self._started)):
            self._give(order, worker)
        return self._answers(coming)

    def _answers(self, coming: Iterator[tuple[Order, _Worker]]) -> Iterator[Answer]:
        while self._owing:
            answer = self._owing.popleft().answer()
            if isinstance(answer, _Failure):
                try:
                    raise answer.error
                finally:
                    del answer  # error and frame would hold each other, and with them whatever owns the workers
            for order, worker in itertools.islice(coming, 1):
                self._give(order, worker)
            yield answer

    def _give(self, order: Order, worker: _Worker) -> None:
        worker.give(order)
        self._owing.append(worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes. At the latest they end with this one, in order."""
        if self._started:
            self._end()


class _Failure(NamedTuple):
    error: Exception


class _Worker(NamedTuple):
    process: BaseProcess
    orders: Connection
    answers: Connection

    def give(self, order: Any) -> None:
        try:
            self.orders.send(order)
        except BrokenPipeError as error:
            raise self._killed() from error

    def answer(self) -> Any:
        wait([self.answers, self.process.sentinel])
        try:
            if self.answers.poll():
                return self.answers.recv()
        except EOFError:
            pass
        raise self._killed()

    def _killed(self) -> RetryError:
        self.process.join(_END_S)
        code = self.process.exitcode or 0
        by = f" by signal {-code}" if code < 0 else ""
        return RetryError(
            f"a process that makes crops was killed{by}, most likely for want of memory; give fewer --workers"
        )


def _start(context: Any, work: Callable[[Any], Any], over: Connection) -> _Worker:
    heard, orders = context.Pipe(duplex=False)
    answers, given = context.Pipe(duplex=False)
    # A daemon: whatever else fails, multiprocessing ends it at this process's exit.
    process = context.Process(target=_serve, args=(work, heard, given, over), daemon=True)
    process.start()
    heard.close()
    given.close()
    return _Worker(process, orders, answers)


def _end(workers: list[_Worker], over: Connection) -> None:
    """Not left to the garbage collector: whatever still refers to them would keep the processes alive."""
    with contextlib.suppress(BrokenPipeError):
        over.send(None)  # never received: every worker sees that there is something
    for worker in workers:
        worker.process.join(_END_S)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.orders.close()
        worker.answers.close()
    over.close()


def _serve(work: Callable[[Any], Any], orders: Connection, answers: Connection, over: Connection) -> None:
    """A worker's life."""
    parent = os.getppid()
    leave_signals_to_the_parent()
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent has ended
        while os.getppid() == parent:
            ready = wait([orders, over], timeout=_LOOK_S)
            if over in ready:
                return
            if orders in ready:
                answers.send(_carried_out(work, orders.recv()))


def _carried_out(work: Callable[[Any], Any], order: Any) -> Any:
    try:
        return work(order)
    except Exception as error:
        error.add_note("in a worker process:\n" + "".join(traceback.format_exception(error)))
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # exceptions of other libraries may not travel
            return _Failure(RuntimeError("".join(traceback.format_exception(error))))
        return _Failure(error)
