"""Worker processes that carry out orders, in the order in which they were asked.

Orders and answers are a few bytes in a socket; all else lies in memory that parent and workers share. Nothing here
needs a file or a semaphore in /dev/shm, which a container may keep small or lack.
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
from typing import Any, NamedTuple

import torch

from cskd_pipeline.errors import RetryError
from cskd_pipeline.loading.worker_start import leave_signals_to_the_parent

Order = tuple[int, int]
"""A slot, and the number of crops to make in it."""

MOST_AHEAD = 128
"""Orders that a worker may hold: a socket takes as many unread, so that nobody blocks sending to one who is sending.

A pipe may be a single page, to which nothing is added once it was filled until all of it has been read.
"""

_LOOK_S = 5.0
"""Seconds between an idle worker's checks that its parent is alive."""


class Workers:
    """Processes that live until they are closed, or without any the calling process, which works when asked.

    They close themselves when Ctrl-C or a worker's death leaves open which orders are answered.
    """

    def __init__(self, work: Callable[[Order], None], count: int, *, method: str | None) -> None:
        """Start `count` processes by `method`, see `start_method`; what `work` raises is raised here."""
        self._work = work
        self._started: list[_Worker] = []
        self._owing: deque[tuple[_Worker, Order]] = deque()
        # Not left to the garbage collector: whatever still refers to the processes would keep them alive.
        self._end = weakref.finalize(self, _end, self._started, os.getpid())
        context: Any = multiprocessing.get_context(method)
        for _ in range(count):
            self._started.append(_start(context, work))

    @property
    def closed(self) -> bool:
        """Whether they have ended."""
        return not self._end.alive

    def close(self) -> None:
        """Kill the processes, even at work; without this they end with the parent."""
        self._end()

    def carry_out(self, orders: Iterable[Order], *, ahead: int) -> Iterator[Order]:
        """The orders, in order, each when it has been carried out.

        Workers have begun when this returns. An order is given before the latest one that is done is handed out: at
        most `ahead` orders a worker are under way, and one in use.

        Raises:
            RetryError: a worker was killed.
        """
        if not self._started:
            return self._here(orders)
        while self._owing:  # of a call that was not used up: what they work at must not be mistaken for this one's
            self._next()
        coming = zip(itertools.cycle(self._started), orders, strict=False)
        for worker, order in itertools.islice(coming, ahead * len(self._started)):
            self._give(worker, order)
        return self._there(coming)

    def _here(self, orders: Iterable[Order]) -> Iterator[Order]:
        for order in orders:
            self._work(order)
            yield order

    def _there(self, coming: Iterator[tuple[_Worker, Order]]) -> Iterator[Order]:
        while self._owing:
            done, error = self._next()
            if error is not None:
                try:
                    raise error
                finally:
                    del error  # it and this frame would hold each other, and with them whatever owns the workers
            for worker, order in itertools.islice(coming, 1):
                self._give(worker, order)
            yield done

    def _give(self, worker: _Worker, order: Order) -> None:
        with self._in_step():
            worker.give(order)
            self._owing.append((worker, order))

    def _next(self) -> tuple[Order, Exception | None]:
        with self._in_step():
            worker, order = self._owing.popleft()
            return order, worker.answer()

    @contextlib.contextmanager
    def _in_step(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise


class _Worker(NamedTuple):
    process: BaseProcess
    connection: Connection

    def give(self, order: Order) -> None:
        try:
            self.connection.send(order)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._killed() from error

    def answer(self) -> Exception | None:
        wait([self.connection, self.process.sentinel])
        with contextlib.suppress(EOFError, OSError):  # killed, perhaps in the middle of an answer
            if self.connection.poll():
                error: Exception | None = self.connection.recv()
                return error
        raise self._killed()

    def _killed(self) -> RetryError:
        self.process.join(_LOOK_S)
        code = self.process.exitcode or 0
        by = f" by signal {-code}" if code < 0 else ""
        return RetryError(
            f"a process that makes crops was killed{by}, most likely for want of memory; give fewer --workers"
        )


def _start(context: Any, work: Callable[[Order], None]) -> _Worker:
    ours, its = context.Pipe()
    # A daemon: whatever else fails, multiprocessing ends it at this process's exit.
    process = context.Process(target=_serve, args=(work, its), daemon=True)
    process.start()
    its.close()
    return _Worker(process, ours)


def _end(workers: list[_Worker], owner: int) -> None:
    if os.getpid() != owner:  # a fork's copy
        return
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.join()
        worker.connection.close()


def _serve(work: Callable[[Order], None], connection: Connection) -> None:
    """The main loop of a worker."""
    parent = os.getppid()
    leave_signals_to_the_parent()
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has ended
        while os.getppid() == parent:
            if connection.poll(_LOOK_S):
                connection.send(_error(work, connection.recv()))


def _error(work: Callable[[Order], None], order: Order) -> Exception | None:
    """Do the work; return None, or the exception it raised."""
    try:
        work(order)
    except Exception as error:
        error.add_note("in a worker process:\n" + "".join(traceback.format_exception(error)))
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # exceptions of other libraries may not travel
            return RuntimeError("".join(traceback.format_exception(error)))
        return error
    return None
