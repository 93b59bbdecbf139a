"""Stage 1 by actors of a Ray cluster: one hands out units, each of the others computes them as a process by itself.

This is the only module that knows Ray. The command's own process watches: it starts the actors, passes on what they
say, tells the queue of deaths that Ray reports, and ends everything.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cskd_pipeline.errors import CskdError, RetryError, StoppedError, UsageError
from cskd_pipeline.labelling.actor_plan import ActorPlan, plan_actors
from cskd_pipeline.labelling.gap import warn_of_gap
from cskd_pipeline.labelling.job import PrecomputeJob, work
from cskd_pipeline.labelling.unit_queue import QueuedUnits, UnitQueue
from cskd_pipeline.labelling.units import Unit
from cskd_pipeline.progress import Progress
from cskd_pipeline.runtime.process_name import process_name
from cskd_pipeline.seeds import format_seeds
from cskd_pipeline.storage import Storage
from cskd_pipeline.store import Claims, StoreWriter
from cskd_pipeline.store.claims import forget_writer

Report = Callable[[str], None]
Build = Callable[[str, Report], tuple[PrecomputeJob, StoreWriter]]
"""From a device's name and whom to tell to a job and its store. It is sent to other machines: a function of a module,
or a `functools.partial` of one, with arguments that mean the same there."""

MAX_DEATHS = 5
"""Processes of one actor that may die one after another while nothing is committed."""

# Ray's own types are of no help where actors get their options one by one.
_ray: Any = ray

_LOOK_S = 0.5
_GRACE_S = 60.0
"""For actors to end by themselves: they finish the chunk in work and write the block that is made."""
_ANSWER_S = 30.0
"""For the queue to answer; where it does not, Ray is dead: SIGTERM may have been for the whole process group."""
_NO_ROOM_S = 60.0
_CONNECT_S = 10.0
_OBJECT_STORE_BYTES = 100 << 20  # of a Ray of our own: nothing but a few words goes through it


def precompute_on_ray(
    build: Build,
    storage: Storage,
    seeds: list[int],
    *,
    actors: int | None,
    workers: int | None,
    augment: bool,
    device: str | None,
    address: str | None,
    report: Report,
) -> None:
    """Have every block of these seeds computed and committed by actors, which come and go as the cluster has room.

    Args:
        build: makes job and store, in each actor.
        storage: the store's.
        seeds: which seeds.
        actors: how many; None: one for each GPU of the cluster.
        workers: processes that make crops, for each actor; None: as many as its share of a node has room for.
        augment: have them do RandAugment; else the teacher's device does it.
        device: "cuda", "cpu" or None, for what the cluster has.
        address: of the cluster, as for `ray.init`; None: $RAY_ADDRESS, or else a Ray of this run's own on this machine.
        report: told what is going on.

    Raises:
        StoppedError: interrupted; committed blocks are kept.
        RetryError: the cluster cannot be reached, or processes die again and again.
        UsageError: the device is none that Ray gives.
        CskdError: whatever an actor's work met; the others have stopped.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    with _connected(address):
        nodes = [node["Resources"] for node in _ray.nodes() if node["Alive"]]
        plan = plan_actors(nodes, actors=actors, workers=workers, device=device)
        if plan.gpus and address is None and not any(node.get("GPU") for node in nodes):
            raise UsageError("--device cuda is given, but Ray finds no GPU here; give --device cpu or --ray-address")
        task = _Task(
            build, tuple(seeds), plan.workers, augment, "cuda:0" if plan.gpus else "cpu", torch.get_num_threads()
        )
        _Crew(plan, task, storage, report).run()


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """A connection to a cluster, or to a Ray that lives as long as this; neither says anything by itself."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or it warns that this will be the default
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of actors that were told to stop
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "address": address or "local"}
    if address is None:
        settings |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    else:
        _require_reachable(address)
    # What Ray says of dead processes and of retries goes to stdout whatever its settings; the report has it already.
    with contextlib.redirect_stdout(io.StringIO()):
        with _signals_kept():
            try:
                ray.init(**settings)
            except ValueError as error:
                raise UsageError(f"--ray-address {address}: {_first_line(error)}") from error
            except (OSError, RuntimeError, RayError, SystemExit) as error:
                raise _unreachable(address, _first_line(error)) from error
        try:
            yield
        finally:
            with _signals_kept():
                ray.shutdown()


def _require_reachable(address: str) -> None:
    """Nothing, if somebody listens there: Ray itself would try for minutes, and end this process then."""
    if address.startswith("ray://"):
        raise UsageError(
            f"--ray-address {address} is a Ray client's; give the cluster's HOST:PORT on one of its machines, or run "
            "the command by `ray job submit`"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return  # "auto", or Ray will say what is wrong
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, str(error)) from error


def _unreachable(address: str | None, reason: str) -> RetryError:
    where = "no Ray could be started here" if address is None else f"no Ray cluster can be reached at {address}"
    return RetryError(
        f"{where} ({reason}); check --ray-address, and set RAY_AUTH_MODE=token where the cluster asks for one"
    )


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """What SIGTERM does is the command line's business, though Ray puts a handler of its own in place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class _Task:
    """What every actor is to do; see `precompute_on_ray`.

    Attributes:
        threads: of torch. Ray would have each process use one, and the number of threads can change a teacher's last
            bits: actors have as many as this command would have by itself.
    """

    build: Build
    seeds: tuple[int, ...]
    workers: int
    augment: bool
    device: str
    threads: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Joined:
    """A process that has begun to fill a worker's seat."""

    worker: int
    process: str
    place: str


@dataclasses.dataclass(frozen=True, slots=True)
class _News:
    """What has happened since the last time somebody asked."""

    lines: list[str]
    joined: list[_Joined]
    at_work: frozenset[int]
    left: int | None
    made: int


class _Queue:
    """The actor that hands out units and collects what is to be said."""

    def __init__(self, seeds: tuple[int, ...]) -> None:
        self._units = UnitQueue([*seeds])
        self._lines: list[str] = []
        self._said_once: set[str] = set()
        self._joined: list[_Joined] = []
        self._at_work: set[int] = set()

    def join(self, joined: _Joined) -> None:
        self._units.join(joined.worker, joined.process)
        self._joined.append(joined)
        self._at_work.discard(joined.worker)

    def open(self, worker: int, blocks: int, committed: dict[int, set[int]]) -> bool:
        self._at_work.add(worker)
        first = self._units.open(blocks, committed)
        left, total = self._units.left() or 0, self._units.total()
        if first and left < total:
            self.say(f"{total - left} of {total} blocks are committed already; {left} to do")
        return first

    def take(self, process: str) -> Unit | None:
        return self._units.take(process)

    def busy(self, process: str, unit: Unit) -> None:
        self._units.busy(process, unit)

    def done(self, unit: Unit, *, made: bool) -> None:
        self._units.done(unit, made=made)

    def lost(self, process: str) -> int:
        return self._units.lost(process)

    def left(self) -> int | None:
        return self._units.left()

    def say(self, line: str, *, once: bool = False) -> None:
        if once and line in self._said_once:
            return
        if once:
            self._said_once.add(line)
        self._lines.append(line)

    def news(self) -> _News:
        news = _News(self._lines, self._joined, frozenset(self._at_work), self._units.left(), self._units.made)
        self._lines, self._joined = [], []
        return news


class _Remote:
    """The methods of an actor as plain calls."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._actor, name)
        return lambda *args, **settings: ray.get(method.remote(*args, **settings))


class _Worker:
    """The actor that computes units: Ray starts its process again when it dies, and has it `run` again.

    `run` and the short calls have threads of their own, so that the latter are answered meanwhile.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._process = process_name()
        self._stop = threading.Event()
        self._watch = object()

    def run(self, actor: Any, task: _Task) -> None:
        """Compute units of the queue that this actor is, until none is left.

        Raises:
            CskdError: see `work`.
        """
        queue: Any = _Remote(actor)
        queue.join(_Joined(self._number, self._process, f"{socket.gethostname()}, process {os.getpid()}"))
        torch.set_num_threads(task.threads)
        job, writer = task.build(task.device, functools.partial(queue.say, once=True))
        first = queue.open(self._number, writer.header.blocks, {seed: writer.committed(seed) for seed in task.seeds})
        if first:
            warn_of_gap(job, seed=task.seeds[0], report=queue.say)
        with Claims(writer.storage, name=self._process, seeds=format_seeds([*task.seeds])) as claims:
            claims.clear_dead()
            units = QueuedUnits(queue, writer, claims, stop=self._stop)

            def say(event: Progress | str) -> None:
                line = event if isinstance(event, str) else event.note
                if line and not units.waiting:
                    queue.say(f"{line} (actor {self._number})")

            work(job, writer, units, workers=task.workers, augment=task.augment, watch=say)

    @ray.method(concurrency_group="short", max_task_retries=0)
    def watch(self, process: str) -> None:
        """Return if this is another process by now, or is watched anew: Ray tells the caller when this one dies."""
        watch = self._watch = object()
        while process == self._process and watch is self._watch:
            time.sleep(1.0)

    @ray.method(concurrency_group="short", max_task_retries=0)
    def stop(self) -> None:
        """Let `run` end as by Ctrl-C."""
        self._stop.set()


class _Seat:
    """A worker as the command's process sees it."""

    def __init__(self, actor: Any, *task: Any) -> None:
        self.actor = actor
        self.run = actor.run.remote(*task)
        self.ended = False
        self.watch: Any = None
        self.process: str | None = None
        self.dead: str | None = None
        """The latest process that died."""
        self.deaths = 0
        self.look_again = 0.0


class _Crew:
    """All actors of a run, from their start to their end."""

    def __init__(self, plan: ActorPlan, task: _Task, storage: Storage, report: Report) -> None:
        self._plan, self._storage, self._report = plan, storage, report
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._queue: Any = _ray.remote(num_cpus=0, scheduling_strategy=here)(_Queue).remote(task.seeds)
        actor_class = _ray.remote(
            num_gpus=plan.gpus,
            num_cpus=plan.cpus,
            max_restarts=-1,
            max_task_retries=-1,
            concurrency_groups={"short": 3},
        )(_Worker)
        self._seats = [_Seat(actor_class.remote(number), self._queue, task) for number in range(plan.actors)]
        self._news = _News([], [], frozenset(), None, 0)
        self._began = time.monotonic()
        self._told_of_room = False

    def run(self) -> None:
        """See `precompute_on_ray`."""
        try:
            try:
                ray.get(self._queue.left.remote())  # from here on it answers at once
                while not self._finished():
                    self._step()
            except Exception:
                self._end()
                raise
            except KeyboardInterrupt:
                self._end()
                raise StoppedError(
                    f"stopped; {self._news.made} blocks were committed to {self._storage.address} in this run; the "
                    "same command goes on"
                ) from None
            self._end()
        except (RayActorError, GetTimeoutError) as error:
            raise RetryError(
                f"the actor that hands out blocks gives no answer ({_first_line(error)}); the same command goes on"
            ) from error

    def _finished(self) -> bool:
        return self._news.left == 0 or all(seat.ended for seat in self._seats)

    def _step(self) -> None:
        """Look at everything once, for at most half a second."""
        self._look()
        for number, seat in enumerate(self._seats):
            if seat.ended:
                self._settle(number, seat)
            if seat.deaths >= MAX_DEATHS:
                raise RetryError(
                    f"{seat.deaths} processes of actor {number} died one after another, most likely for want of "
                    "memory; give fewer --workers, a smaller --chunk or fewer --actors"
                )
        self._tell_of_room()

    def _look(self, *, answer_s: float = _ANSWER_S) -> None:
        """Note whose `run` has ended and who is dead, and pass on what there is to say."""
        waited = [seat.run for seat in self._seats if not seat.ended]
        waited += [seat.watch for seat in self._seats if seat.watch is not None]
        ready, _ = ray.wait(waited, num_returns=1, timeout=_LOOK_S) if waited else ([], [])
        self._hear(timeout=answer_s)
        for number, seat in enumerate(self._seats):
            seat.ended = seat.ended or seat.run in ready
            if seat.watch is not None and seat.watch in ready:
                self._look_after(number, seat)
            elif seat.watch is None and seat.process is not None and time.monotonic() >= seat.look_again:
                seat.watch = seat.actor.watch.remote(seat.process)

    def _hear(self, *, timeout: float = _ANSWER_S) -> None:
        made = self._news.made
        self._news = ray.get(self._queue.news.remote(), timeout=timeout)
        for joined in self._news.joined:
            seat = self._seats[joined.worker]
            self._report(f"actor {joined.worker} is at work on {joined.place}")
            if seat.process not in (None, joined.process):
                self._mourn(joined.worker, seat)
            seat.process, seat.watch = joined.process, seat.actor.watch.remote(joined.process)
        for line in self._news.lines:
            self._report(line)
        if self._news.made > made:
            for seat in self._seats:
                seat.deaths = 0

    def _settle(self, number: int, seat: _Seat) -> None:
        """What a `run` that has ended says of itself."""
        try:
            ray.get(seat.run)
        except RayTaskError as error:
            if isinstance(error.cause, CskdError | OSError | MemoryError | torch.OutOfMemoryError):
                raise error.cause from None  # the command line has words for these
            raise
        except RayActorError as error:
            raise RetryError(
                f"actor {number} cannot be started ({_first_line(error)}); all nodes need the same cskd-pipeline"
            ) from error

    def _look_after(self, number: int, seat: _Seat) -> None:
        """A watch is over: the process is dead, or out of reach, or already another."""
        watch, seat.watch = seat.watch, None
        seat.look_again = time.monotonic() + 2.0
        try:
            ray.get(watch)
        except RayActorError:
            self._mourn(number, seat)

    def _mourn(self, number: int, seat: _Seat) -> None:
        """Free what a dead process held, in the store and in the queue."""
        process = seat.process
        if process is None or process == seat.dead:
            return
        seat.dead = process
        seat.deaths += 1
        with contextlib.suppress(CskdError):  # its claims are free after a while in any case
            forget_writer(self._storage, process)
        self._queue.lost.remote(process)
        self._report(f"the process of actor {number} died; others make its blocks, and Ray starts it again")

    def _tell_of_room(self) -> None:
        if self._told_of_room or time.monotonic() - self._began < _NO_ROOM_S:
            return
        self._told_of_room = True
        waiting = sum(seat.process is None for seat in self._seats)
        if waiting:
            self._report(
                f"{waiting} of {len(self._seats)} actors have not begun; each needs {self._plan.gpus} GPU and "
                f"{self._plan.cpus} CPU, and begins when the cluster has room"
            )

    def _end(self) -> None:
        """Let all who are at work stop in order; those who have not begun, or take too long, are killed."""
        deadline = time.monotonic() + _GRACE_S
        told: set[str | None] = set()
        try:
            while True:
                self._look(answer_s=_ANSWER_S / 3)
                at_work = [self._seats[number] for number in self._news.at_work]
                at_work = [seat for seat in at_work if not seat.ended and seat.process != seat.dead]
                if not at_work or time.monotonic() > deadline:
                    break
                for seat in at_work:
                    if self._news.left != 0 and seat.process not in told:
                        told.add(seat.process)
                        seat.actor.stop.remote()
            for seat in self._seats:
                ray.kill(seat.actor)
        except (RayError, KeyboardInterrupt):
            pass  # Ray is dead, or its user does not want to wait: with this process its actors end in any case
